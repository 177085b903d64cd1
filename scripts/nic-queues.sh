#!/usr/bin/env bash
# Queues and steering of one network interface, made fit for Veltrix:
# channel count, RSS table, UDP hash fields and, on demand, queues of their
# own for one UDP port. `--help` has the whole story.
#
# Order of every change: lock, save what was (once, atomically), write, read
# back. Whatever moment it is killed at, the saved state is complete or absent,
# and `undo` converges from any half-way point.
#
# shellcheck disable=SC2015 # `A && B || die`: die ends the script either way

set -uo pipefail
export LC_ALL=C
# check is for every user, and ethtool is not on every user's PATH.
PATH=$PATH:/usr/sbin:/sbin

readonly EXIT_FAILED=1 EXIT_USAGE=2 EXIT_NOT_READY=3 EXIT_NOT_PERMITTED=77
readonly CAP_NET_ADMIN=12
readonly STATE_DIR=${VELTRIX_STATE_DIR:-/run/veltrix}
readonly STATE_VERSION=1
# RSS contexts looked for; ethtool cannot list them, only ask for one by number.
readonly CONTEXTS_MAX=16
readonly SELF=${0##*/}

usage() {
    cat <<TEXT
Usage: $SELF check IFACE [COUNT] [--dedicate PORT --queues A-B] [--require] [--json]
       $SELF apply IFACE [COUNT] [--dedicate PORT --queues A-B] [--require]
       $SELF undo  IFACE
       $SELF legal DRIVER MAX CPUS

check   judges the interface and changes nothing; needs no privilege
apply   saves what is, then sets COUNT channels, an RSS table equal over them
        and the UDP 4-tuple hash; does nothing where all of it holds
undo    restores what the first apply found, then forgets it
legal   prints the fewest and the most queues that DRIVER with MAX channels
        keeps under an XDP program on a host with CPUS possible CPUs

COUNT   queues, one lane each. Left out: check takes any legal count, apply
        takes the number of usable CPUs, or the legal count next to it.

  --dedicate PORT   send UDP datagrams for PORT to the queues of --queues and
                    everything else to the others, so that the host's own
                    traffic never shares a queue with Veltrix
  --queues A-B      those queues; they start at 0 or end at COUNT-1
  --require         fail where the NIC or its driver lacks a feature; without
                    it such a feature is reported and skipped
  --json            check only: one JSON object on standard output
  -h, --help        this text

State is kept in $STATE_DIR (override: VELTRIX_STATE_DIR).
Exit: 0 done or ready, 1 a change failed or did not hold, 2 usage,
      3 not ready, 77 not permitted (CAP_NET_ADMIN).
TEXT
}

say() { printf '%s\n' "$*"; }
complain() { printf '%s: %s\n' "$SELF" "$*" >&2; }
die() {
    local code=$1
    shift
    complain "$*"
    exit "$code"
}

# ---------------------------------------------------------------- arguments

VERB='' IFACE='' COUNT='' DEDICATE_PORT='' DEDICATE_FIRST='' DEDICATE_LAST=''
REQUIRE=0 JSON=0

# A decimal number without sign or leading zero, small enough for arithmetic.
is_number() { [[ $1 =~ ^(0|[1-9][0-9]{0,8})$ ]]; }

parse_arguments() {
    local positional=() queues=''
    while (($#)); do
        case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        --json) JSON=1 ;;
        --require) REQUIRE=1 ;;
        --dedicate | --queues)
            (($# >= 2)) || die $EXIT_USAGE "$1: wanted a value; see $SELF --help"
            if [[ $1 == --dedicate ]]; then DEDICATE_PORT=$2; else queues=$2; fi
            shift
            ;;
        -*) die $EXIT_USAGE "option $1: not known; see $SELF --help" ;;
        *) positional+=("$1") ;;
        esac
        shift
    done
    ((${#positional[@]})) || die $EXIT_USAGE "no command: wanted check, apply, undo or legal; see $SELF --help"
    VERB=${positional[0]}
    case $VERB in
    legal)
        ((${#positional[@]} == 4)) || die $EXIT_USAGE "legal: wanted DRIVER MAX CPUS"
        is_number "${positional[2]}" && is_number "${positional[3]}" ||
            die $EXIT_USAGE "legal: MAX and CPUS: found ${positional[2]} and ${positional[3]}, wanted numbers"
        legal_count "${positional[1]}" "${positional[2]}" "${positional[3]}"
        say "$LEAST $LEGAL"
        exit 0
        ;;
    check | apply | undo) ;;
    *) die $EXIT_USAGE "command '$VERB': wanted check, apply, undo or legal; see $SELF --help" ;;
    esac
    ((${#positional[@]} >= 2)) || die $EXIT_USAGE "$VERB: wanted an interface; there are: $(interfaces)"
    ((${#positional[@]} <= 3)) || die $EXIT_USAGE "'${positional[3]}': one argument too many; see $SELF --help"
    IFACE=${positional[1]}
    COUNT=${positional[2]-}
    if [[ $VERB == undo && -n $COUNT$DEDICATE_PORT$queues ]]; then
        die $EXIT_USAGE "undo takes an interface only; it restores what the first apply found"
    fi
    ((JSON == 0)) || [[ $VERB == check ]] || die $EXIT_USAGE "--json: only check prints JSON"
    if [[ ${positional[2]+given} ]]; then
        is_number "$COUNT" && ((COUNT >= 1)) || die $EXIT_USAGE "COUNT: found '$COUNT', wanted a number of at least 1"
    fi
    parse_dedicated "$queues"
}

parse_dedicated() {
    local queues=$1
    [[ -n $DEDICATE_PORT$queues ]] || return 0
    [[ -n $DEDICATE_PORT && -n $queues ]] || die $EXIT_USAGE "--dedicate PORT and --queues A-B go together"
    is_number "$DEDICATE_PORT" && ((DEDICATE_PORT >= 1 && DEDICATE_PORT <= 65535)) ||
        die $EXIT_USAGE "--dedicate: found '$DEDICATE_PORT', wanted a port of 1 to 65535"
    DEDICATE_FIRST=${queues%%-*} DEDICATE_LAST=${queues##*-}
    [[ $queues == "$DEDICATE_FIRST" || $queues == "$DEDICATE_FIRST-$DEDICATE_LAST" ]] &&
        is_number "$DEDICATE_FIRST" && is_number "$DEDICATE_LAST" && ((DEDICATE_FIRST <= DEDICATE_LAST)) ||
        die $EXIT_USAGE "--queues: found '$queues', wanted A or A-B with A <= B"
}

# ------------------------------------------------------- reading the interface

# /sys may belong to another network namespace; /proc/self/net never does.
interfaces() { awk -F: 'NR > 2 { gsub(/ /, "", $1); printf "%s%s", sep, $1; sep = " " }' /proc/self/net/dev; }

have_interface() {
    local name
    for name in $(interfaces); do
        [[ $name == "$1" ]] && return 0
    done
    return 1
}

has_net_admin() {
    local caps
    caps=$(awk '$1 == "CapEff:" { print $2 }' /proc/self/status)
    [[ -n $caps ]] && (((16#$caps >> CAP_NET_ADMIN) & 1))
}

read_driver() {
    DRIVER=$(ethtool -i "$IFACE" 2>/dev/null | awk '$1 == "driver:" { print $2 }')
    DRIVER=${DRIVER:-none}
}

read_mac() { ip -o link show dev "$IFACE" 2>/dev/null | sed -n 's|.* link/[^ ]* \([0-9a-f:]*\).*|\1|p'; }

# Sets CH (0: the driver reports no channels), MAX_* and NOW_*; absent is 0.
read_channels() {
    local text
    CH=0 MAX_RX=0 MAX_TX=0 MAX_COMBINED=0 NOW_RX=0 NOW_TX=0 NOW_COMBINED=0
    text=$(ethtool -l "$IFACE" 2>/dev/null) || return 0
    read -r MAX_RX MAX_TX MAX_COMBINED NOW_RX NOW_TX NOW_COMBINED < <(awk '
        /^Pre-set maximums/ { at = "max" }
        /^Current hardware settings/ { at = "now" }
        /^(RX|TX|Combined):/ { key = $1; sub(/:/, "", key); value[at, key] = ($2 ~ /^[0-9]+$/) ? $2 : 0 }
        END { print value["max","RX"]+0, value["max","TX"]+0, value["max","Combined"]+0,
                    value["now","RX"]+0, value["now","TX"]+0, value["now","Combined"]+0 }' <<<"$text")
    ((MAX_RX + MAX_TX + MAX_COMBINED == 0)) || CH=1
}

# Queue counts as AF_XDP sees them, and the most that carry a socket.
rx_now() { echo $((CH ? NOW_RX + NOW_COMBINED : 1)); }
tx_now() { echo $((CH ? NOW_TX + NOW_COMBINED : 1)); }
queues_max() {
    if ((!CH)); then
        echo 1
    elif ((MAX_COMBINED)); then
        echo "$MAX_COMBINED"
    else
        echo $((MAX_RX < MAX_TX ? MAX_RX : MAX_TX))
    fi
}

possible_cpus() {
    local list
    list=$(cat /sys/devices/system/cpu/possible 2>/dev/null) || list=0-$(($(nproc) - 1))
    echo $((${list##*[-,]} + 1))
}

# The same table as DRIVERS in userspace/src/nic/facts.rs, where each row's
# source is named; a test compares the two. Sets LEAST, LEGAL (the most) and
# LEGAL_WHY.
legal_count() {
    local driver=$1 max=$2 cpus=$3
    LEAST=1
    case $driver in
    ena | gve)
        LEGAL=$((max / 2))
        LEGAL_WHY="$driver takes an XDP program only at half of its $max channels or fewer"
        ;;
    virtio_net)
        LEGAL=$max
        LEAST=$((max > cpus ? max - cpus + 1 : 1))
        LEGAL_WHY="virtio_net adds $cpus queues when a program comes and as many of its $max channels are left"
        ;;
    *)
        LEGAL=$max
        LEGAL_WHY="driver $driver has at most $max channels"
        ;;
    esac
}

# The RSS indirection table as "0,1,0,1,..."; empty where there is none.
# With a number, the table of that RSS context.
rss_table() {
    ethtool -x "$IFACE" ${1:+context "$1"} 2>/dev/null | awk '
        /^RSS hash key/ { exit }
        /^ *[0-9]+:/ { for (i = 2; i <= NF; i++) { printf "%s%s", sep, $i; sep = "," } }'
}

# Whether table $1 uses exactly the queues $2..$3, each as often as the next.
table_is_equal() {
    awk -v table="$1" -v first="$2" -v last="$3" 'BEGIN {
        n = split(table, entry, ",")
        for (i = 1; i <= n; i++) { if (entry[i] < first || entry[i] > last) exit 1; seen[entry[i]]++ }
        for (q = first; q <= last; q++) {
            if (q == first || seen[q] < least) least = seen[q] + 0
            if (seen[q] > most) most = seen[q]
        }
        exit !(n > 0 && most - least <= 1)
    }'
}

# Hash fields of $1 (udp4, udp6) as ethtool's letters, "none" for no field;
# empty where the driver does not tell, "?" where it hashes what has no letter here.
hash_fields() {
    ethtool -n "$IFACE" rx-flow-hash "$1" 2>/dev/null | awk '
        /use these fields/ { seen = 1; next }
        /^L2DA/ { f = f "m"; next }
        /^VLAN tag/ { f = f "v"; next }
        /^L3 proto/ { f = f "t"; next }
        /^IP SA/ { f = f "s"; next }
        /^IP DA/ { f = f "d"; next }
        /^L4 bytes 0 & 1/ { f = f "f"; next }
        /^L4 bytes 2 & 3/ { f = f "n"; next }
        /^All matching flows discarded/ { f = f "r"; next }
        /^\(?None\)?/ || /^$/ { next }
        seen { odd = 1 }
        END { if (seen) print (odd ? "?" : (f == "" ? "none" : f)) }'
}

# on, off, or empty where the NIC has no ntuple filters to switch on.
ntuple_feature() {
    ethtool -k "$IFACE" 2>/dev/null |
        awk '$1 == "ntuple-filters:" && ($2 == "on" || $3 != "[fixed]") { print $2 }'
}

# One line a steering rule: id, udp4|udp6|other, destination port, context or
# "-", queue or "-".
rules() {
    ethtool -n "$IFACE" 2>/dev/null | awk '
        function out() { if (id != "") print id, type, port, context, queue }
        /^Filter:/ { out(); id = $2; type = "other"; port = "-"; context = "-"; queue = "-" }
        /Rule Type: UDP over IPv4/ { type = "udp4" }
        /Rule Type: UDP over IPv6/ { type = "udp6" }
        /Dest port:/ && $5 == "0x0" { port = $3 }
        /RSS Context ID:/ { context = $4 }
        /Action: Direct to queue/ { queue = $5 }
        END { out() }'
}

contexts() {
    local id found=''
    [[ -n $(rss_table) ]] || return 0
    for ((id = 1; id <= CONTEXTS_MAX; id++)); do
        [[ -z $(rss_table "$id") ]] || found+="${found:+,}$id"
    done
    echo "$found"
}

has_xdp() { ip -o link show dev "$IFACE" 2>/dev/null | grep -q ' xdp'; }

# Name of the veth's other end if it is in this namespace.
veth_peer() { ip -o link show dev "$IFACE" 2>/dev/null | sed -n "s/^[0-9]*: ${IFACE//./\\.}@\([^:]*\):.*/\1/p"; }

in_list() { [[ ,$2, == *,$1,* ]]; }

# ---------------------------------------------------------------- what is wanted

# The legal count nearest to $1.
clamp() { echo $(($1 > LEGAL ? LEGAL : $1 < LEAST ? LEAST : $1)); }

# Sets COUNT (if it was left out), RSS_FIRST and RSS_LAST.
settle_target() {
    legal_count "$DRIVER" "$(queues_max)" "$(possible_cpus)"
    ((LEGAL >= 1)) || die $EXIT_NOT_READY \
        "$IFACE (driver $DRIVER): no queue can run XDP: $LEGAL_WHY; take an instance type with more queues"
    WANTED=$COUNT
    if [[ -z $COUNT ]]; then
        if [[ $VERB == check ]]; then
            COUNT=$(rx_now)
        else
            COUNT=$(nproc)
            COUNT=$(clamp "$COUNT")
        fi
    fi
    if [[ $VERB == apply ]] && ((COUNT != $(clamp "$COUNT"))); then
        die $EXIT_USAGE "COUNT: found $COUNT, wanted $LEAST to $LEGAL: $LEGAL_WHY; try: $0 apply $IFACE $(clamp "$COUNT")"
    fi
    RSS_FIRST=0 RSS_LAST=$((COUNT - 1))
    [[ -z $DEDICATE_PORT ]] || settle_dedicated
}

# Checks the dedicated queues and takes them out of the RSS table's range.
settle_dedicated() {
    local last=$RSS_LAST
    ((DEDICATE_LAST <= last)) || die $EXIT_USAGE "--queues: found $DEDICATE_FIRST-$DEDICATE_LAST, wanted queues of 0-$last"
    if ((DEDICATE_FIRST == 0 && DEDICATE_LAST < last)); then
        RSS_FIRST=$((DEDICATE_LAST + 1))
    elif ((DEDICATE_FIRST > 0 && DEDICATE_LAST == last)); then
        RSS_LAST=$((DEDICATE_FIRST - 1))
    else
        die $EXIT_USAGE "--queues: found $DEDICATE_FIRST-$DEDICATE_LAST of 0-$last, wanted a part that starts at 0 or ends at $last and leaves a queue to the host"
    fi
    # Without a rule that fills them, queues left out of the table would idle.
    [[ -n $(ntuple_feature) ]] || RSS_FIRST=0 RSS_LAST=$last
}

# ---------------------------------------------------------------- check

declare -a ROWS=()
NOT_READY=0

# condition, required, found, severity (ok, info, skipped, error), mend
row() {
    ROWS+=("$1"$'\t'"$2"$'\t'"$3"$'\t'"$4"$'\t'"$5")
    [[ $4 != error ]] || NOT_READY=1
}

# A feature that is not there: a row of its own kind.
row_lacking() {
    local severity=skipped
    ((!REQUIRE)) || severity=error
    row "$1" "$2" "not supported by $DRIVER, skipped" "$severity" "another NIC, or run without --require"
}

judge() {
    local condition=$1 required=$2 found=$3 holds=$4 mend=$5
    if ((holds)); then
        row "$condition" "$required" "$found" ok ''
    else
        row "$condition" "$required" "$found" error "$mend"
    fi
}

mend_command() {
    local extra=''
    [[ -z $DEDICATE_PORT ]] || extra=" --dedicate $DEDICATE_PORT --queues $DEDICATE_FIRST-$DEDICATE_LAST"
    echo "$0 apply $IFACE $1$extra"
}

check_channels() {
    local rx tx mend
    rx=$(rx_now) tx=$(tx_now)
    mend=${WANTED:-$((rx < tx ? rx : tx))}
    mend=$(mend_command "$(clamp "$mend")")
    if ((!CH)); then
        row_lacking channels 'a channel count that can be pinned'
        judge queue-count "${WANTED:-1}" 1 $((${WANTED:-1} == 1)) "another NIC: this one has a single queue"
        return
    fi
    [[ -z $WANTED ]] || judge queue-count "$WANTED" "$rx rx, $tx tx" $((rx == WANTED && tx == WANTED)) "$mend"
    judge queues-equal 'as many rx as tx' "$rx rx, $tx tx" $((rx == tx)) "$mend"
    judge queues-legal "$LEAST to $LEGAL ($LEGAL_WHY)" "$rx" $((rx >= LEAST && rx <= LEGAL)) "$mend"
    if [[ -n $WANTED ]] && ((WANTED != $(clamp "$WANTED"))); then
        row count-legal "a COUNT of $LEAST to $LEGAL" "$WANTED" error "$mend"
    fi
}

check_peer() {
    local peer peer_tx rx
    [[ $DRIVER == veth ]] || return 0
    peer=$(veth_peer) rx=$(rx_now)
    peer_tx=$([[ -z $peer ]] || ethtool -l "$peer" 2>/dev/null | awk '/^Current/ { now = 1 } now && $1 == "TX:" { print $2 }')
    if [[ -n $peer_tx ]]; then
        judge peer-queues "at most $rx tx on the peer $peer, else attach gives ENOSPC" "$peer_tx tx" \
            $((peer_tx <= rx)) "$0 apply $peer $rx"
    else
        row peer-queues "at most $rx tx on the peer, else attach gives ENOSPC" \
            'peer in another network namespace' info "run check there"
    fi
}

check_rss() {
    local table
    table=$(rss_table)
    if [[ -z $table ]]; then
        row_lacking rss-table "equal over queues $RSS_FIRST-$RSS_LAST"
        return
    fi
    local holds=0
    table_is_equal "$table" "$RSS_FIRST" "$RSS_LAST" && holds=1
    judge rss-table "equal over queues $RSS_FIRST-$RSS_LAST" "queues $(tr , '\n' <<<"$table" | sort -nu | paste -sd,)" \
        $holds "$(mend_command "$COUNT")"
}

check_hash() {
    local flow fields
    for flow in udp4 udp6; do
        fields=$(hash_fields "$flow")
        if [[ -z $fields ]]; then
            row_lacking "hash-$flow" 'sdfn (addresses and ports)'
        else
            judge "hash-$flow" 'sdfn (addresses and ports)' "$fields" \
                $(($([[ $fields == sdfn ]] && echo 1 || echo 0) || COUNT == 1)) "$(mend_command "$COUNT")"
        fi
    done
}

check_dedicated() {
    local flow holds
    [[ -n $DEDICATE_PORT ]] || return 0
    if [[ -z $(ntuple_feature) ]]; then
        row_lacking dedicated-queues "port $DEDICATE_PORT on queues $DEDICATE_FIRST-$DEDICATE_LAST"
        return
    fi
    for flow in udp4 udp6; do
        holds=0
        [[ -n $(good_rule "$flow") ]] && holds=1
        judge "dedicated-$flow" "port $DEDICATE_PORT on queues $DEDICATE_FIRST-$DEDICATE_LAST" \
            "$( ((holds)) && echo 'a rule that does so' || echo 'no such rule')" $holds "$(mend_command "$COUNT")"
    done
}

json_string() {
    local text=$1
    text=${text//\\/\\\\} text=${text//\"/\\\"} text=${text//$'\t'/ }
    printf '"%s"' "$text"
}

print_rows() {
    local line condition required found severity mend sep=''
    if ((JSON)); then
        printf '{"interface":%s,"driver":%s,"ready":%s,"conditions":[' "$(json_string "$IFACE")" \
            "$(json_string "$DRIVER")" "$( ((NOT_READY)) && echo false || echo true)"
    else
        printf '%s (driver %s)\n' "$IFACE" "$DRIVER"
    fi
    for line in "${ROWS[@]}"; do
        IFS=$'\t' read -r condition required found severity mend <<<"$line"
        if ((JSON)); then
            printf '%s{"condition":%s,"required":%s,"found":%s,"severity":%s,"mend":%s}' "$sep" \
                "$(json_string "$condition")" "$(json_string "$required")" "$(json_string "$found")" \
                "$(json_string "$severity")" "$( [[ -n $mend ]] && json_string "$mend" || echo null)"
            sep=,
        else
            printf '%-8s%-16s required: %s; found: %s%s\n' "$severity" "$condition" "$required" "$found" \
                "${mend:+; mend: $mend}"
        fi
    done
    ((!JSON)) || printf ']}\n'
}

do_check() {
    settle_target
    check_channels
    check_peer
    check_rss
    check_hash
    check_dedicated
    print_rows
    ((!NOT_READY)) || exit $EXIT_NOT_READY
}

# ---------------------------------------------------------------- changing

# Prints and runs. Sets RUN_ERR to what it complained; the status is its own.
run() {
    local err status
    printf '+ %s\n' "$*"
    err=$(mktemp) || die $EXIT_FAILED "mktemp failed"
    "$@" 2>"$err"
    status=$?
    RUN_ERR=$(paste -sd' ' "$err")
    rm -f "$err"
    return $status
}

failed() {
    local cure=''
    if has_xdp; then cure="; an XDP program is attached, which some drivers take as a reason to refuse: stop veltrix first"; fi
    die $EXIT_FAILED "$IFACE (driver $DRIVER): $1${RUN_ERR:+: $RUN_ERR}$cure; what was is in $STATE_FILE: $0 undo $IFACE"
}

# For what the NIC lacks.
skip() {
    ((!REQUIRE)) || die $EXIT_FAILED "$IFACE: $1: not supported by $DRIVER, and --require was given"
    say "$1: not supported by $DRIVER, skipped"
}

refused_as_unsupported() { [[ $RUN_ERR == *"not supported"* ]]; }

# set_channels RX TX COMBINED: asks only for what differs, all in one call.
set_channels() {
    local args=()
    ((MAX_COMBINED == 0 || NOW_COMBINED == $3)) || args+=(combined "$3")
    ((MAX_RX == 0 || NOW_RX == $1)) || args+=(rx "$1")
    ((MAX_TX == 0 || NOW_TX == $2)) || args+=(tx "$2")
    ((${#args[@]})) || return 0
    run ethtool -L "$IFACE" "${args[@]}" || failed "the channel count was refused"
    read_channels
    [[ $NOW_RX == "$1" && $NOW_TX == "$2" && $NOW_COMBINED == "$3" ]] ||
        failed "the channel count did not hold: wanted rx $1 tx $2 combined $3, found rx $NOW_RX tx $NOW_TX combined $NOW_COMBINED"
}

apply_channels() {
    if ((!CH)); then
        skip 'channel count'
    elif ((MAX_COMBINED)); then
        set_channels 0 0 "$COUNT"
    else
        set_channels "$COUNT" "$COUNT" 0
    fi
}

apply_rss() {
    local table
    table=$(rss_table)
    if [[ -z $table ]]; then
        skip 'RSS table'
        return
    fi
    table_is_equal "$table" "$RSS_FIRST" "$RSS_LAST" && return
    local start=()
    ((RSS_FIRST == 0)) || start=(start "$RSS_FIRST")
    if ! run ethtool -X "$IFACE" "${start[@]}" equal $((RSS_LAST - RSS_FIRST + 1)); then
        refused_as_unsupported || failed "the RSS table was refused"
        skip 'RSS table'
        return
    fi
    table=$(rss_table)
    table_is_equal "$table" "$RSS_FIRST" "$RSS_LAST" ||
        failed "the RSS table did not hold: wanted it equal over queues $RSS_FIRST-$RSS_LAST, found $table"
}

set_hash() {
    local flow=$1 fields=$2 found
    if ! run ethtool -N "$IFACE" rx-flow-hash "$flow" "$fields"; then
        refused_as_unsupported || failed "the hash fields of $flow were refused"
        skip "hash of $flow"
        return
    fi
    found=$(hash_fields "$flow")
    [[ $found == "$fields" ]] || failed "the hash fields of $flow did not hold: wanted $fields, found $found"
}

apply_hash() {
    local flow fields
    for flow in udp4 udp6; do
        fields=$(hash_fields "$flow")
        if [[ -z $fields ]]; then
            skip "hash of $flow"
        elif [[ $fields != sdfn ]]; then
            set_hash "$flow" sdfn
        fi
    done
}

# Id of a rule that already sends flow $1 for the port where it should go.
good_rule() {
    local id flow port context queue
    while read -r id flow port context queue; do
        [[ $flow == "$1" && $port == "$DEDICATE_PORT" ]] || continue
        if [[ $context == - ]]; then
            [[ $DEDICATE_FIRST == "$DEDICATE_LAST" && $queue == "$DEDICATE_FIRST" ]] && echo "$id"
        elif table_is_equal "$(rss_table "$context")" "$DEDICATE_FIRST" "$DEDICATE_LAST"; then
            echo "$id"
        fi
    done < <(rules)
}

# Number of a context of ours (not there when the state was saved) over the
# dedicated queues.
own_context() {
    local id saved
    saved=$(state_value contexts)
    for id in $(contexts | tr , ' '); do
        in_list "$id" "$saved" && continue
        table_is_equal "$(rss_table "$id")" "$DEDICATE_FIRST" "$DEDICATE_LAST" || continue
        echo "$id"
        return
    done
}

apply_dedicated() {
    local flow target context
    [[ -n $DEDICATE_PORT ]] || return 0
    case $(ntuple_feature) in
    '')
        skip 'dedicated queues (ntuple filters)'
        return
        ;;
    off) set_ntuple on ;;
    esac
    for flow in udp4 udp6; do
        [[ -z $(good_rule "$flow") ]] || continue
        if ((DEDICATE_FIRST == DEDICATE_LAST)); then
            target=(action "$DEDICATE_FIRST")
        else
            context=$(own_context)
            if [[ -z $context ]]; then
                run ethtool -X "$IFACE" context new start "$DEDICATE_FIRST" equal $((DEDICATE_LAST - DEDICATE_FIRST + 1)) ||
                    failed "an RSS context for queues $DEDICATE_FIRST-$DEDICATE_LAST was refused; try a single queue"
                context=$(own_context)
                [[ -n $context ]] || failed "the new RSS context is not there"
            fi
            target=(context "$context")
        fi
        run ethtool -N "$IFACE" flow-type "$flow" dst-port "$DEDICATE_PORT" "${target[@]}" ||
            failed "the steering rule for $flow port $DEDICATE_PORT was refused"
        [[ -n $(good_rule "$flow") ]] || failed "the steering rule for $flow port $DEDICATE_PORT is not there"
    done
}

set_ntuple() {
    run ethtool -K "$IFACE" ntuple "$1" || failed "switching ntuple filters $1 was refused"
    [[ $(ntuple_feature) == "$1" ]] || failed "ntuple filters did not hold: wanted $1"
}

# With --require: everything that is lacking, before anything is changed.
require_features() {
    local lacking=() flow
    ((REQUIRE)) || return 0
    ((CH)) || lacking+=('channel count')
    [[ -n $(rss_table) ]] || lacking+=('RSS table')
    for flow in udp4 udp6; do
        [[ -n $(hash_fields "$flow") ]] || lacking+=("hash of $flow")
    done
    [[ -z $DEDICATE_PORT || -n $(ntuple_feature) ]] || lacking+=('dedicated queues (ntuple filters)')
    ((${#lacking[@]} == 0)) || die $EXIT_FAILED \
        "$IFACE: $(printf '%s, ' "${lacking[@]}")not supported by $DRIVER, and --require was given; nothing was changed"
}

do_apply() {
    settle_target
    require_features
    prepare_state
    # A driver refuses to take away channels that a table of the
    # administrator's names, and cannot spread over channels not there yet.
    if ((COUNT < $(rx_now))); then
        apply_rss
        apply_channels
    else
        apply_channels
        apply_rss
    fi
    # Some drivers reset the table with the channels.
    local table
    table=$(rss_table)
    if [[ -n $table ]] && ! table_is_equal "$table" "$RSS_FIRST" "$RSS_LAST"; then apply_rss; fi
    apply_hash
    apply_dedicated
    say "$IFACE: $(rx_now) rx and $(tx_now) tx queues; what was: $STATE_FILE; to restore: $0 undo $IFACE"
}

# ---------------------------------------------------------------- saved state

state_value() { sed -n "s/^$1=//p" "$STATE_FILE" 2>/dev/null; }

lock_state() {
    mkdir -p "$STATE_DIR" || die $EXIT_NOT_PERMITTED "$STATE_DIR: cannot be made; wanted a directory to keep state in: set VELTRIX_STATE_DIR"
    [[ -w $STATE_DIR ]] || die $EXIT_NOT_PERMITTED "$STATE_DIR: cannot be written; set VELTRIX_STATE_DIR"
    exec 9>"$STATE_FILE.lock" || die $EXIT_FAILED "$STATE_FILE.lock: cannot be opened"
    flock -n 9 || die $EXIT_FAILED "$STATE_FILE.lock: another $SELF is at work on $IFACE; wait for it"
    # Left over from a save that was killed; it never became the state.
    rm -f "$STATE_FILE".new.*
}

# Replaces the state file by standard input, all or nothing.
write_state() {
    local new
    new=$(mktemp "$STATE_FILE.new.XXXXXX") || die $EXIT_FAILED "$STATE_DIR: cannot be written"
    cat >"$new" && sync "$new" && mv -f "$new" "$STATE_FILE" || die $EXIT_FAILED "$STATE_FILE: cannot be written"
    sync "$STATE_DIR" || die $EXIT_FAILED "$STATE_DIR: cannot be synced"
}

require_same_device() {
    local version driver mac
    version=$(state_value version) driver=$(state_value driver) mac=$(state_value mac)
    [[ $version == "$STATE_VERSION" ]] ||
        die $EXIT_FAILED "$STATE_FILE: version: found '$version', wanted $STATE_VERSION; if it is of no use: rm $STATE_FILE"
    [[ $driver == "$DRIVER" && $mac == "$(read_mac)" ]] ||
        die $EXIT_FAILED "$STATE_FILE is of another device ($driver $mac), $IFACE now is $DRIVER $(read_mac); if that one is gone: rm $STATE_FILE"
}

# Saves what is, unless an earlier apply did; notes the port whose rules are ours.
prepare_state() {
    local ports
    if [[ -e $STATE_FILE ]]; then
        require_same_device
        [[ -n $DEDICATE_PORT ]] || return 0
        ports=$(state_value ports)
        in_list "$DEDICATE_PORT" "$ports" && return 0
        { sed '/^ports=/d' "$STATE_FILE" && echo "ports=${ports:+$ports,}$DEDICATE_PORT"; } | write_state || exit $?
        return
    fi
    local udp4 udp6
    udp4=$(hash_fields udp4) udp6=$(hash_fields udp6)
    [[ $udp4$udp6 != *'?'* ]] ||
        die $EXIT_FAILED "$IFACE: hash fields that cannot be restored: see ethtool -n $IFACE rx-flow-hash udp4, udp6"
    write_state <<STATE
version=$STATE_VERSION
interface=$IFACE
driver=$DRIVER
mac=$(read_mac)
channels=$CH
rx=$NOW_RX
tx=$NOW_TX
combined=$NOW_COMBINED
rss=$(rss_table)
hash_udp4=$udp4
hash_udp6=$udp6
ntuple=$(ntuple_feature)
rules=$(rules | cut -d' ' -f1 | paste -sd,)
contexts=$(contexts)
ports=$DEDICATE_PORT
STATE
    say "what was is saved in $STATE_FILE"
}

undo_dedicated() {
    local ports id port saved was
    ports=$(state_value ports)
    [[ -n $ports ]] || return 0
    saved=$(state_value rules)
    while read -r id _ port _; do
        in_list "$port" "$ports" && ! in_list "$id" "$saved" || continue
        run ethtool -N "$IFACE" delete "$id" || failed "deleting the steering rule $id was refused"
    done < <(rules)
    saved=$(state_value contexts)
    for id in $(contexts | tr , ' '); do
        in_list "$id" "$saved" && continue
        run ethtool -X "$IFACE" context "$id" delete || failed "deleting the RSS context $id was refused"
    done
    was=$(state_value ntuple)
    [[ -z $was || $was == "$(ntuple_feature)" ]] || set_ntuple "$was"
}

undo_hash() {
    local flow was now
    for flow in udp4 udp6; do
        was=$(state_value "hash_$flow") now=$(hash_fields "$flow")
        [[ -z $was || $was == "$now" ]] && continue
        [[ $was != none ]] || failed "$flow was hashed over no field, which ethtool cannot set; found $now"
        set_hash "$flow" "$was"
    done
}

# Tables that ethtool can write, most likely first: the driver's own, equal
# over n queues, and blocks by weight. Each is read back.
undo_rss() {
    local was form
    was=$(state_value rss)
    [[ -n $was && $was != "$(rss_table)" ]] || return 0
    local top weights
    top=$(tr , '\n' <<<"$was" | sort -n | tail -1)
    weights=$(tr , '\n' <<<"$was" | awk -v top="$top" '{ n[$1]++ } END { for (q = 0; q <= top; q++) printf "%s%d", (q ? " " : ""), n[q] }')
    for form in default "equal $((top + 1))" "weight $weights"; do
        # shellcheck disable=SC2086 # the form is several words
        run ethtool -X "$IFACE" $form || continue
        [[ $was != "$(rss_table)" ]] || return 0
    done
    failed "the RSS table that was cannot be written by ethtool; it is the line rss= of $STATE_FILE"
}

undo_channels() {
    local rx tx combined table top
    [[ $(state_value channels) == 1 ]] || return 0
    rx=$(state_value rx) tx=$(state_value tx) combined=$(state_value combined)
    is_number "$rx" && is_number "$tx" && is_number "$combined" ||
        die $EXIT_FAILED "$STATE_FILE: found rx '$rx' tx '$tx' combined '$combined', wanted numbers"
    table=$(rss_table)
    if [[ -n $table ]]; then
        top=$(tr , '\n' <<<"$table" | sort -n | tail -1)
        if ((top >= rx + combined)); then
            run ethtool -X "$IFACE" default || failed "resetting the RSS table was refused"
        fi
    fi
    set_channels "$rx" "$tx" "$combined"
}

do_undo() {
    if [[ ! -e $STATE_FILE ]]; then
        say "$IFACE: nothing to undo: $STATE_FILE is not there"
        return
    fi
    require_same_device
    undo_dedicated
    undo_hash
    undo_channels
    undo_rss
    rm -f "$STATE_FILE" || die $EXIT_FAILED "$STATE_FILE: cannot be removed"
    say "$IFACE: as it was: $(rx_now) rx and $(tx_now) tx queues"
}

# ---------------------------------------------------------------- main

parse_arguments "$@"
for tool in ethtool ip flock; do
    command -v "$tool" >/dev/null ||
        die $EXIT_NOT_READY "$tool: not found, wanted on PATH; on Debian: apt-get install ethtool iproute2 util-linux"
done
have_interface "$IFACE" || die $EXIT_USAGE "interface '$IFACE': not in this network namespace; there are: $(interfaces)"
readonly STATE_FILE=$STATE_DIR/nic-queues.$IFACE.state
read_driver
read_channels
case $VERB in
check) do_check ;;
*)
    has_net_admin || die $EXIT_NOT_PERMITTED "$VERB: wanted CAP_NET_ADMIN among the effective capabilities; try: sudo $0 $VERB $IFACE${COUNT:+ $COUNT}"
    lock_state
    "do_$VERB"
    ;;
esac
