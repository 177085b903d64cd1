// The panels beside the map: top ten, latest claims, rates, times, sums. Each takes
// what the server said and shows it; none asks for anything.

const $ = (id) => document.getElementById(id);
/** Seconds that graphs look back. */
const LOOK_BACK = 120;
/** Claims in the list. */
const CLAIMS_MAX = 10;
/** Of one line of the stream: those that were applied, and others. */
const GOOD_MAX = 7;

export const count = (n) => Number(n).toLocaleString('en');

/** Nanoseconds as people read them. */
export function duration(ns) {
  const n = Number(ns);
  const short = (v) => (v >= 100 ? v.toFixed(0) : v >= 10 ? v.toFixed(1) : v.toFixed(2)).replace(/\.0+$/, '');
  if (n === 0) return '0';
  if (n < 1e3) return `${n} ns`;
  if (n < 1e6) return `${short(n / 1e3)} µs`;
  if (n < 1e9) return `${short(n / 1e6)} ms`;
  return seconds(n / 1e9);
}

export function seconds(s) {
  if (s < 100) return `${s.toFixed(1)} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  return s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
}

/** An element with text and children; values that are undefined are left out. */
export function make(tag, { text, ...values } = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(values)) {
    if (value !== undefined) element.setAttribute(name, value);
  }
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}

const drawn = (tag, values) => {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(values)) element.setAttribute(name, value);
  return element;
};

/**
 * Draws lines over the last two minutes. `rows` are the newest last, a second each;
 * `height` gives the share of the graph's height that a value has.
 */
function graph(host, rows, { lines, areas = [], ticks, height }) {
  const [wide, tall, left] = [host.clientWidth, host.clientHeight, 46];
  if (wide < 80 || tall < 30) return;
  const svg = drawn('svg', { width: wide, height: tall, role: 'img' });
  const x = (at) => wide - 2 - ((rows.length - 1 - at) * (wide - left - 4)) / (LOOK_BACK - 1);
  const y = (value) => tall - 3 - height(value) * (tall - 12);
  for (const { value, text } of ticks) {
    const at = y(value).toFixed(1);
    svg.append(drawn('line', { class: 'tick', x1: left, x2: wide, y1: at, y2: at }));
    const label = drawn('text', { class: 'label', x: left - 6, y: Math.max(9, at), 'text-anchor': 'end' });
    label.textContent = text;
    svg.append(label);
  }
  const path = (points) => points.map(([px, py], i) => `${i ? 'L' : 'M'}${px.toFixed(1)} ${py.toFixed(1)}`).join('');
  for (const { name, from, to } of areas) {
    const upper = rows.map((row, at) => [x(at), y(to(row))]);
    const lower = rows.map((row, at) => [x(at), y(from(row))]).reverse();
    if (rows.length > 1) svg.append(drawn('path', { class: `area ${name}`, d: `${path([...upper, ...lower])}Z` }));
  }
  for (const { name, of } of lines) {
    // A second without a value is a gap.
    let run = [];
    const end = () => {
      if (run.length > 1) svg.append(drawn('path', { class: `line ${name}`, d: path(run) }));
      if (run.length === 1) svg.append(drawn('circle', { class: `only ${name}`, cx: run[0][0], cy: run[0][1], r: 1.6 }));
      run = [];
    };
    rows.forEach((row, at) => {
      const value = of(row);
      if (value > 0 || areas.length) run.push([x(at), y(value)]);
      else end();
    });
    end();
  }
  host.replaceChildren(svg);
}

const push = (rows, row) => {
  rows.push(row);
  if (rows.length > LOOK_BACK) rows.shift();
};

/** Events a second, from the counters of two readings. */
export class Rate {
  rows = [];
  before = null;

  take(status, now) {
    const groups = { applied: 0, duplicate: 0, refused: 0 };
    for (const [outcome, n] of Object.entries(status.events)) {
      const isGood = outcome === 'applied' || outcome === 'accepted';
      groups[isGood ? 'applied' : outcome === 'duplicate' ? 'duplicate' : 'refused'] += Number(n);
    }
    const { before } = this;
    this.before = { ...groups, now, pid: status.pid };
    if (!before || before.pid !== status.pid || now <= before.now) return;
    const rate = (name) => Math.max(0, ((groups[name] - before[name]) * 1000) / (now - before.now));
    push(this.rows, { applied: rate('applied'), duplicate: rate('duplicate'), refused: rate('refused') });
    this.show();
  }

  show() {
    const last = this.rows.at(-1);
    if (!last) return;
    const sum = (row) => row.applied + row.duplicate + row.refused;
    const number = (name, label, value) =>
      make('div', { class: name }, make('dt', { text: label }), make('dd', { text: count(Math.round(value)) }));
    $('rates').replaceChildren(
      number('all', 'all', sum(last)),
      number('applied', 'applied', last.applied),
      number('duplicate', 'duplicates', last.duplicate),
      number('refused', 'refused', last.refused),
    );
    const most = Math.max(...this.rows.map(sum), 1);
    const top = niceAbove(most);
    graph($('rate-graph'), this.rows, {
      height: (value) => value / top,
      ticks: [0, top / 2, top].map((value) => ({ value, text: short(value) })),
      areas: [
        { name: 'applied', from: () => 0, to: (row) => row.applied },
        { name: 'duplicate', from: (row) => row.applied, to: (row) => row.applied + row.duplicate },
        { name: 'refused', from: (row) => row.applied + row.duplicate, to: sum },
      ],
      lines: [{ name: 'all', of: sum }],
    });
  }
}

function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= value);
}

function short(value) {
  if (value >= 1e6) return `${+(value / 1e6).toFixed(1)} M`;
  return value >= 1e3 ? `${+(value / 1e3).toFixed(1)} k` : String(+value.toFixed(1));
}

/** Time of an event: worst first. */
export class Latency {
  rows = [];

  take(status) {
    const stages = status.log?.stages ?? [];
    const whole = stages.find((row) => row.stage === 'whole')?.last_10s_ns;
    const has = whole && Number(whole.count) > 0;
    for (const name of ['max', 'p999', 'p99', 'p50']) $(`ns-${name}`).textContent = has ? duration(whole[name]) : '–';
    push(this.rows, has ? whole : { max: 0, p99: 0, p50: 0 });
    this.show();
    const rows = stages.filter((row) => row.stage !== 'whole').map(({ stage, last_10s_ns: ns }) => {
      const cell = (value) => make('td', { text: Number(ns.count) > 0 ? duration(value) : '–' });
      return make('tr', {}, make('th', { text: stage, scope: 'row' }), cell(ns.max), cell(ns.p99), cell(ns.p50));
    });
    $('stages').tBodies[0].replaceChildren(...rows);
  }

  show() {
    const values = this.rows.flatMap((row) => [row.max, row.p50]).filter((ns) => ns > 0).map(Number);
    if (values.length === 0) return $('latency-graph').replaceChildren();
    const low = Math.floor(Math.log10(Math.min(...values)));
    const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values))));
    const ticks = [];
    for (let power = low; power <= high; power++) ticks.push({ value: 10 ** power, text: duration(10 ** power) });
    graph($('latency-graph'), this.rows, {
      height: (value) => (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low),
      ticks,
      lines: ['p50', 'p99', 'max'].map((name) => ({ name, of: (row) => Number(row[name]) })),
    });
  }
}

/** Whether every frame and event is accounted for. */
export function showSums(status) {
  const sums = status.accounting;
  const lanes = [...status.lanes, ...(status.fallback ? [status.fallback] : [])];
  const over = (of) => lanes.reduce((sum, lane) => sum + Number(of(lane)), 0);
  const [off, verdict] = [Math.abs(Number(sums.unaccounted)), $('closes')];
  verdict.textContent = sums.closes ? 'every sum closes' : `${count(off)} off`;
  verdict.dataset.closes = sums.closes;
  const parts = [
    ['lane exits', sums.lane_exits],
    ['left to the kernel', sums.passed],
    ['dropped by the program', sums.dropped],
    ['dropped by the kernel', sums.kernel_dropped],
    ['to the fallback socket', sums.fallback_expected],
    ['waiting in rings', sums.in_flight],
  ];
  const outcomes = Object.entries(status.events).sort((a, b) => b[1] - a[1]);
  outcomes.push(['pending', over((lane) => lane.acks.events_pending)]);
  outcomes.push(['lost', over((lane) => lane.acks.events_lost)]);
  $('lines').replaceChildren(
    line('frames in', sums.frames_in, parts, 'exits'),
    line('events', over((lane) => lane.events), outcomes, 'outcomes'),
    ...sums.gaps.map((gap) =>
      make('p', { class: 'gap', text: `${gap.place}: ${gap.line}: ${count(gap.left)} and ${count(gap.right)}` })),
  );
  $('alarms').replaceChildren(
    ...status.alarms.map((alarm) => make('li', { text: `${alarm.name}: ${alarm.message}` })),
  );
}

function line(name, total, parts, right) {
  const sum = parts.reduce((sum, [, n]) => sum + Number(n), 0);
  const rows = parts.filter(([, n]) => Number(n) > 0).map(([label, n]) =>
    make('div', {}, make('dt', { text: label }), make('dd', { text: count(n) })));
  return make('div', { class: 'line' },
    make('p', { class: 'equation' },
      make('span', {}, make('b', { text: count(total) }), ` ${name}`),
      make('i', { text: Number(total) === sum ? '=' : '≈', title: Number(total) === sum ? '' : 'not read at one instant' }),
      make('span', {}, make('b', { text: count(sum) }), ` ${right}`)),
    make('dl', {}, ...rows));
}

/** Rows of the leaderboard; who has changed is marked. */
export class Ranks {
  scores = new Map();

  clear() {
    this.scores.clear();
    $('ranks').replaceChildren();
  }

  take(board) {
    const best = Number(board.rows[0]?.score ?? 1);
    const rows = board.rows.map(({ rank, player, score }) => {
      const [before, now] = [this.scores.get(String(player)), Number(score)];
      const isNew = this.scores.size > 0 && before !== now;
      const bar = make('i', { class: 'bar' });
      bar.style.width = `${Math.max(1, (now / best) * 100)}%`;
      return make('li', { 'data-player': player, 'data-score': score, class: isNew ? 'new' : undefined },
        bar, make('span', { class: 'rank', text: rank }), make('span', { class: 'who', text: `player ${player}` }),
        make('b', { text: count(score) }));
    });
    this.scores = new Map(board.rows.map((row) => [String(row.player), Number(row.score)]));
    if (rows.length === 0) rows.push(make('li', { class: 'none', text: 'Nobody has a score yet.' }));
    $('ranks').replaceChildren(...rows);
  }
}

/** Without a hunt: where something happens, to choose from. */
export class Busiest {
  seen = [];

  take(samples, now) {
    for (const { hunt } of samples) this.seen.push({ hunt, now });
    const from = this.seen.findIndex((row) => row.now > now - 10_000);
    this.seen = from < 0 ? [] : this.seen.slice(from);
  }

  show() {
    const tally = new Map();
    for (const { hunt } of this.seen) tally.set(hunt, (tally.get(hunt) ?? 0) + 1);
    const best = [...tally].sort((a, b) => b[1] - a[1]).slice(0, 10);
    const rows = best.map(([hunt, n]) => {
      const bar = make('i', { class: 'bar' });
      bar.style.width = `${(n / best[0][1]) * 100}%`;
      return make('li', { 'data-hunt': hunt }, bar, make('a', { class: 'who', href: `#hunt=${hunt}`, text: `hunt ${hunt}` }),
        make('b', { text: count(n) }));
    });
    if (rows.length === 0) {
      rows.push(make('li', { class: 'none', text: 'Nothing happens just now. Name a hunt above to see what it holds.' }));
    }
    $('ranks').replaceChildren(...rows);
  }
}

/** What came over the stream last. */
export class Claims {
  clear() {
    $('claims').replaceChildren();
  }

  take(samples, withHunt) {
    const list = $('claims');
    const isApplied = (sample) => sample.outcome === 'applied' && !sample.duplicate;
    const good = samples.filter(isApplied).slice(-GOOD_MAX);
    const others = samples.filter((sample) => !isApplied(sample)).slice(-(CLAIMS_MAX - GOOD_MAX));
    for (const sample of [...good, ...others].sort((a, b) => a.epoch - b.epoch)) {
      const isGood = isApplied(sample);
      const what = sample.kind === 'claim' ? 'ticket' : 'chest';
      const said = sample.duplicate ? 'duplicate' : sample.outcome;
      const { durable, applied } = sample.after_sealed_ns;
      list.prepend(make('li', {
        'data-cell': sample.subject, 'data-player': sample.player, 'data-epoch': sample.epoch,
        'data-outcome': sample.outcome, class: isGood ? 'good' : 'refused',
        title: `${sample.outcome}; durable ${duration(durable)}, applied ${duration(applied)} after its batch was sealed; on this page ${duration(sample.age_ns)} later`,
      },
      make('i', { class: `dot ${isGood ? what : 'gone'}` }),
      make('span', { class: 'who', text: `player ${sample.player}` }),
      make('span', { class: 'where', text: withHunt ? `hunt ${sample.hunt}` : `cell ${sample.subject}` }),
      make('span', { class: 'said', text: said }),
      make('span', { class: 'epoch', text: `epoch ${count(sample.epoch)}` })));
    }
    while (list.childElementCount > CLAIMS_MAX) list.lastElementChild.remove();
  }
}
