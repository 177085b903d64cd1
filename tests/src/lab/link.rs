//! The veth pair: creation, addresses, queue counts. Ioctls go through a
//! socket of the namespace, so they need no thread inside.

use std::os::fd::AsRawFd as _;
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::namespace::{Namespace, check};
use super::{
    CLIENT_INTERFACE, CLIENT_IPV4, CLIENT_IPV6, CLIENT_MAC, LabSpec, MacAddress, SERVER_INTERFACE,
    SERVER_IPV4, SERVER_IPV6, SERVER_MAC,
};

// linux/ethtool.h
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_SCHANNELS: u32 = 0x3d;

/// Runs a command inside; an error carries what it said.
fn run(namespace: &Namespace, line: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    let program = words.next().ok_or_else(|| anyhow!("lab: an empty command"))?;
    let arguments: Vec<&str> = words.collect();
    let output = namespace.enter(|| Command::new(program).args(arguments).output());
    let output = output.with_context(|| {
        format!("lab: `{program}` cannot be started: apt-get install iproute2 ethtool")
    })?;
    ensure!(
        output.status.success(),
        "lab: `{line}` failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn mac(address: MacAddress) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

/// One end as the commands need it.
struct End<'a> {
    namespace: &'a Namespace,
    interface: &'static str,
    addresses: [String; 2],
    peer_addresses: [String; 2],
    peer_mac: String,
}

/// Makes the pair and brings both ends up.
pub(super) fn create(server: &Namespace, client: &Namespace, spec: &LabSpec) -> Result<()> {
    for namespace in [server, client] {
        quiet(namespace)?;
        run(namespace, "ip link set lo up")?;
    }
    let queues = spec.queues_max;
    let queues = format!("numrxqueues {queues} numtxqueues {queues}");
    let (server_mac, client_mac) = (mac(SERVER_MAC), mac(CLIENT_MAC));
    let mtu = spec.mtu;
    let tid = client.holder_tid();
    run(
        server,
        &format!(
            "ip link add {SERVER_INTERFACE} mtu {mtu} address {server_mac} {queues} type veth \
             peer name {CLIENT_INTERFACE} mtu {mtu} address {client_mac} {queues} netns {tid}"
        ),
    )?;
    let server_addresses = [SERVER_IPV4.to_string(), SERVER_IPV6.to_string()];
    let client_addresses = [CLIENT_IPV4.to_string(), CLIENT_IPV6.to_string()];
    let ends = [
        End {
            namespace: server,
            interface: SERVER_INTERFACE,
            addresses: server_addresses.clone(),
            peer_addresses: client_addresses.clone(),
            peer_mac: client_mac,
        },
        End {
            namespace: client,
            interface: CLIENT_INTERFACE,
            addresses: client_addresses,
            peer_addresses: server_addresses,
            peer_mac: server_mac,
        },
    ];
    for end in &ends {
        end.configure(spec.checksum_offload)?;
    }
    // Routes and neighbours want both ends up.
    for end in &ends {
        end.point_at_peer()?;
    }
    Ok(())
}

/// Makes a pair of interfaces that stay down; gives their names.
pub(super) fn create_anchors(client: &Namespace, number: usize) -> Result<Vec<String>> {
    let names = [format!("anchor-{number}a"), format!("anchor-{number}b")];
    let [one, other] = &names;
    run(client, &format!("ip link add {one} type veth peer name {other}"))?;
    Ok(names.into())
}

impl End<'_> {
    fn configure(&self, checksum_offload: bool) -> Result<()> {
        let interface = self.interface;
        let checksums = if checksum_offload { "on" } else { "off" };
        // What merges, splits or defers would make one frame of several, or
        // hide a VLAN tag from XDP.
        run(
            self.namespace,
            &format!(
                "ethtool -K {interface} gro off gso off tso off tx-udp-segmentation off \
                 rx-udp-gro-forwarding off rxvlan off txvlan off tx {checksums}"
            ),
        )?;
        // NOARP: no ARP, no neighbour discovery, no multicast groups to report.
        run(self.namespace, &format!("ip link set {interface} arp off"))?;
        let [ipv4, ipv6] = &self.addresses;
        run(self.namespace, &format!("ip addr add {ipv4}/24 dev {interface}"))?;
        run(self.namespace, &format!("ip addr add {ipv6}/64 dev {interface} nodad"))?;
        run(self.namespace, &format!("ip link set {interface} up"))
    }

    /// Sends everything to the peer: generated sources lie outside the
    /// subnet, and a fallback socket must be able to answer them.
    fn point_at_peer(&self) -> Result<()> {
        let (interface, peer_mac) = (self.interface, &self.peer_mac);
        for peer in &self.peer_addresses {
            let neighbour = format!("{peer} lladdr {peer_mac} dev {interface} nud permanent");
            run(self.namespace, &format!("ip neigh replace {neighbour}"))?;
            let family = if peer.contains(':') { "-6" } else { "-4" };
            run(
                self.namespace,
                &format!("ip {family} route add default via {peer} dev {interface}"),
            )?;
        }
        Ok(())
    }
}

/// Turns off what a namespace says of itself. Inside, `/proc/sys/net` is the
/// namespace's own.
fn quiet(namespace: &Namespace) -> Result<()> {
    let settings = [
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/default/router_solicitations", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/addr_gen_mode", "1"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/conf/all/rp_filter", "0"),
    ];
    namespace.enter(|| {
        for (key, value) in settings {
            let path = format!("/proc/sys/net/{key}");
            std::fs::write(&path, value).with_context(|| format!("lab: {value} to {path}"))?;
        }
        Ok(())
    })
}

/// Calls `SIOCETHTOOL` (or another interface ioctl) with `data`, a structure
/// the command knows, as a slice of words so that it is aligned.
pub(super) fn ethtool(namespace: &Namespace, interface: &str, data: &mut [u64]) -> Result<()> {
    let mut request = interface_request(interface)?;
    request.ifr_ifru.ifru_data = data.as_mut_ptr().cast();
    let socket = namespace.socket();
    // SAFETY: a valid request whose data points to a buffer that every caller
    // sizes for the largest answer of its command.
    check(unsafe { libc::ioctl(socket, libc::SIOCETHTOOL, &raw mut request) })
        .with_context(|| format!("lab: SIOCETHTOOL on {interface}"))
}

fn interface_request(interface: &str) -> Result<libc::ifreq> {
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    ensure!(
        interface.len() < request.ifr_name.len(),
        "lab: interface name {interface} is too long"
    );
    for (slot, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *slot = byte.cast_signed();
    }
    Ok(request)
}

/// Interface index inside the namespace.
pub(super) fn ifindex(namespace: &Namespace, interface: &str) -> Result<u32> {
    let mut request = interface_request(interface)?;
    let socket = namespace.socket();
    // SAFETY: a valid request that the kernel fills.
    check(unsafe { libc::ioctl(socket, libc::SIOCGIFINDEX, &raw mut request) })
        .with_context(|| format!("lab: no interface {interface}"))?;
    // SAFETY: SIOCGIFINDEX filled this member of the union.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex }.cast_unsigned())
}

/// Sends frames out of an interface of the calling thread's namespace.
pub(super) fn transmit(ifindex: u32, frames: &[impl AsRef<[u8]>]) -> Result<()> {
    // Protocol 0: the socket receives nothing.
    let socket = socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, None)
        .context("lab: a packet socket cannot be had")?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: ifindex.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    for (index, frame) in frames.iter().enumerate() {
        let frame = frame.as_ref();
        // SAFETY: a buffer and an address that outlive the call, with their sizes.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if sent < 0 {
            return Err(std::io::Error::last_os_error()).with_context(|| {
                format!("lab: frame {index} of {} bytes cannot be sent", frame.len())
            });
        }
    }
    Ok(())
}

/// Active queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Channels {
    pub(super) rx: u32,
    pub(super) tx: u32,
}

/// Words of `struct ethtool_channels`: nine 32-bit numbers: command, four
/// maxima, then rx, tx, other and combined.
const CHANNEL_WORDS: usize = 5;

pub(super) fn low(word: u64) -> u32 {
    word as u32
}

pub(super) fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

/// A word that holds `first` and `second` in this order in memory.
pub(super) fn pair(first: u32, second: u32) -> u64 {
    u64::from(first) | u64::from(second) << 32
}

/// Reads the queue counts.
pub(super) fn channels(namespace: &Namespace, interface: &str) -> Result<Channels> {
    let mut data = [0; CHANNEL_WORDS];
    data[0] = pair(ETHTOOL_GCHANNELS, 0);
    ethtool(namespace, interface, &mut data)?;
    Ok(Channels { rx: high(data[2]), tx: low(data[3]) })
}

/// Sets the queue counts and reads them back.
pub(super) fn set_channels(namespace: &Namespace, interface: &str, rx: u32, tx: u32) -> Result<()> {
    let mut data = [0; CHANNEL_WORDS];
    data[0] = pair(ETHTOOL_GCHANNELS, 0);
    ethtool(namespace, interface, &mut data)?;
    if (high(data[2]), low(data[3])) == (rx, tx) {
        return Ok(());
    }
    data[0] = pair(ETHTOOL_SCHANNELS, high(data[0]));
    data[2] = pair(low(data[2]), rx);
    data[3] = pair(tx, high(data[3]));
    ethtool(namespace, interface, &mut data)
        .with_context(|| format!("lab: {interface} refuses rx {rx} tx {tx}"))?;
    let now = channels(namespace, interface)?;
    ensure!(
        now == Channels { rx, tx },
        "lab: {interface} has {now:?} after rx {rx} tx {tx} were set"
    );
    Ok(())
}
