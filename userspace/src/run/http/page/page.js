// The page: which hunt is shown, what is asked and how often, and what is said when
// an answer does not come.

import { Refusal, ask, file, follow, use } from './ask.js';
import { WorldMap } from './map.js';
import { Busiest, Claims, Latency, Ranks, Rate, count, duration, seconds, showSums } from './panels.js';

const $ = (id) => document.getElementById(id);
/** Pauses between two asks, milliseconds. */
const STATUS_MS = 1000;
const BOARD_MS = 1000;
const CELLS_MS = 2000;
/** Boxes that are asked for in one round of the map: some ten milliseconds of the server. */
const BOXES_MAX = 64;
const CELLS_LIMIT = 100;
/** From here on an answer is called old: milliseconds without one, nanoseconds of its own age. */
const AWAY_MS = 3000;
const STALE_NS = 1e9;

const now = () => performance.now();
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** The hunt in decimal digits; null for all. A change makes answers to older asks void. */
let hunt = null;
let era = 0;
let status = null;
const heard = { status: 0, board: null, cells: null };
const troubles = new Map();

const map = new WorldMap($('field'), {
  onMove: () => cells.soon(),
  onPick: (cell) => navigator.clipboard?.writeText(String(cell.cell)).catch(() => {}),
});
const [rate, latency, ranks, busiest, claims] = [new Rate(), new Latency(), new Ranks(), new Busiest(), new Claims()];

/** Does a job again and again, the next time `pause` after it was done, or soon. */
class Loop {
  constructor(name, pause, job) {
    Object.assign(this, { name, pause, job, wake: null, isDue: false });
  }

  async run() {
    for (;;) {
      this.isDue = false;
      const begun = era;
      try {
        await this.job();
        troubles.delete(this.name);
      } catch (error) {
        if (begun === era) troubles.set(this.name, error);
        if (!(error instanceof Refusal)) console.error(error);
      }
      tell();
      if (!this.isDue) await Promise.race([sleep(this.pause), new Promise((wake) => (this.wake = wake))]);
    }
  }

  soon() {
    this.isDue = true;
    this.wake?.();
  }
}

const statuses = new Loop('status', STATUS_MS, async () => {
  const said = await ask('/status');
  [status, heard.status] = [said, now()];
  map.logTimeS = said.log ? Number(BigInt(said.log.log_time_ns) / 1_000_000_000n) : 0;
  rate.take(said, now());
  latency.take(said);
  showSums(said);
  $('server').textContent = `veltrix ${said.version}, ${said.provider} on ${said.nic?.name ?? said.listen}, ` +
    `${said.lanes.length} lane${said.lanes.length === 1 ? '' : 's'}, ${said.partitions} partitions`;
});

const board = new Loop('board', BOARD_MS, async () => {
  if (hunt === null) return busiest.show();
  const begun = era;
  const said = await ask(`/v1/hunts/${hunt}/leaderboard?limit=10`);
  if (begun !== era) return;
  ranks.take(said);
  heard.board = { epoch: said.epoch, age_ns: said.age_ns, at: now() };
});

/** Asks for the cells in view: a box that holds more than an answer is cut in four. */
const cells = new Loop('cells', CELLS_MS, async () => {
  if (hunt === null) return;
  const begun = era;
  const summary = await ask(`/v1/hunts/${hunt}`);
  const boxes = [map.box()];
  let [oldest, epoch] = [Number(summary.age_ns), Number(summary.epoch)];
  for (let asked = 0; boxes.length > 0 && asked < BOXES_MAX; asked++) {
    const [west, south, east, north] = boxes.shift();
    const said = await ask(`/v1/cells?hunt=${hunt}&bbox=${west},${south},${east},${north}&limit=${CELLS_LIMIT}`);
    if (begun !== era) return;
    for (const cell of said.cells) map.put(cell, Number(said.epoch));
    oldest = Math.max(oldest, Number(said.age_ns));
    epoch = Math.min(epoch, Number(said.epoch));
    if (said.next === null || (west === east && south === north)) continue;
    const [x, y] = [Math.floor((west + east) / 2), Math.floor((south + north) / 2)];
    const parts = [[west, south, x, y], [x + 1, south, east, y], [west, y + 1, x, north], [x + 1, y + 1, east, north]];
    boxes.push(...parts.filter(([x0, y0, x1, y1]) => x0 <= x1 && y0 <= y1));
  }
  heard.cells = { epoch, age_ns: oldest, at: now(), all: summary.cells, players: summary.players, cut: boxes.length > 0 };
  if (!map.isFitted) {
    map.isFitted = true;
    map.fit();
  }
});

/** Follows the stream for as long as the page shows the same hunt. */
async function watch() {
  for (;;) {
    const [begun, stop] = [era, new AbortController()];
    watch.stop = stop;
    try {
      const path = hunt === null ? '/v1/stream' : `/v1/stream?hunt=${hunt}`;
      const opened = () => {
        troubles.delete('stream');
        watch.hunt = hunt;
      };
      await follow(path, stop.signal, opened, (event, data) => {
        if (begun !== era) return;
        if (event === 'samples') take(data);
        if (event === 'missed') watch.lost += Number(data.lines);
      });
    } catch (error) {
      if (begun === era) troubles.set('stream', error);
    }
    watch.hunt = undefined;
    tell();
    if (begun === era) await sleep(1000);
  }
}
watch.lost = 0;
watch.rows = 0;

function take({ samples, left_out: leftOut, lost }) {
  watch.rows += samples.length;
  watch.lost += Number(leftOut) + Number(lost);
  const isClaim = (sample) => sample.kind === 'claim' || sample.kind === 'use-key';
  const found = samples.filter(isClaim);
  const good = found.filter((sample) => sample.outcome === 'applied' && !sample.duplicate);
  good.slice(-40).forEach((sample) => map.light(sample));
  claims.take(found, hunt === null);
  if (hunt === null) busiest.take(samples, now());
  else if (good.length > 0) board.soon();
}

function ago(at) {
  return `${((now() - at) / 1000).toFixed(1)} s ago`;
}

const shown = (answer) => `epoch ${count(answer.epoch)}, age ${duration(answer.age_ns)}, ${ago(answer.at)}`;

/** What is known, how old it is, and what is wrong. */
function tell() {
  const gravest = [...troubles.values()].sort((a, b) => rank(a) - rank(b))[0];
  const isAway = troubles.get('status')?.status === 0;
  const isOld = heard.status > 0 && now() - heard.status > AWAY_MS;
  const oldest = Math.max(Number(heard.board?.age_ns ?? 0), Number(heard.cells?.age_ns ?? 0));
  const readOld = hunt !== null && heard.board !== null && now() - heard.board.at > AWAY_MS;
  const isStale = oldest > STALE_NS || readOld;
  const log = status?.log;
  const [state, words] =
    isAway || isOld ? ['away', heard.status ? `away, last heard ${ago(heard.status)}` : 'away']
    : !status ? ['starting', 'connecting']
    : log && !log.ready ? ['starting', 'takes no events']
    : isStale ? ['stale', oldest > STALE_NS ? `stale, ${duration(oldest)} old` : 'stale']
    : status.alarms.length > 0 ? ['alarm', `${status.alarms.length} alarm${status.alarms.length === 1 ? '' : 's'}`]
    : ['live', 'live'];
  $('state').dataset.state = state;
  $('state').textContent = words;
  document.body.classList.toggle('old', state === 'away' || state === 'stale');

  $('trouble').hidden = !gravest;
  $('trouble-what').textContent = gravest ? sentence(gravest.message) : '';
  $('trouble-mend').textContent = gravest?.mend ? sentence(gravest.mend) : '';
  $('token').hidden = gravest?.status !== 401;

  $('epoch').textContent = log ? count(log.applied_epoch) : '–';
  const ages = [heard.board, heard.cells].filter(Boolean).map((answer) => Number(answer.age_ns));
  $('age').textContent = ages.length ? duration(Math.max(...ages)) : '–';
  $('asked').textContent = heard.status ? ago(heard.status) : '–';
  $('uptime').textContent = status ? seconds(Number(status.uptime_s)) : '–';

  $('map-title').textContent = hunt === null ? 'All hunts' : `Hunt ${hunt}`;
  const found = heard.cells;
  $('map-sub').textContent = hunt === null ? 'claims as they are applied' : !found ? '' :
    `${found.cut ? `${count(map.cells.size)} of ` : ''}${count(found.all)} cells, ${count(found.players)} players; ${shown(found)}`;
  $('top-title').textContent = hunt === null ? 'Busiest hunts' : 'Top ten';
  $('top-sub').textContent = hunt === null ? 'samples in 10 s' : heard.board ? shown(heard.board) : '';
  $('sampled').textContent = watch.lost > 0
    ? `${count(watch.rows)} samples, ${count(watch.lost)} left out` : `${count(watch.rows)} samples`;
}

function rank(error) {
  return [0, 401, 501, 400, 404].indexOf(error.status ?? 0) + 1 || 9;
}

function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

/** Takes the hunt from the address: `#hunt=42`. */
function choose() {
  const text = new URLSearchParams(location.hash.slice(1)).get('hunt')?.trim() ?? '';
  $('hunt').value = text;
  era += 1;
  [heard.board, heard.cells] = [null, null];
  ['hunt', 'board', 'cells', 'stream'].forEach((name) => troubles.delete(name));
  map.clear();
  ranks.clear();
  claims.clear();
  map.isFitted = text === '';
  map.world();
  const isId = /^\d{1,20}$/.test(text) && BigInt(text) < 2n ** 64n;
  hunt = isId ? BigInt(text).toString() : null;
  if (text !== '' && !isId) {
    troubles.set('hunt', new Refusal(400, `the hunt is \`${text}\`, wanted its number`, 'write it in decimal digits'));
  }
  watch.stop?.abort();
  [board, cells].forEach((loop) => loop.soon());
  tell();
}

$('pick').addEventListener('submit', (event) => {
  event.preventDefault();
  const text = $('hunt').value.trim();
  location.hash = text === '' ? '' : `hunt=${encodeURIComponent(text)}`;
});
$('token').addEventListener('submit', (event) => {
  event.preventDefault();
  use($('token-text').value.trim());
  [statuses, board, cells].forEach((loop) => loop.soon());
});
$('fit').addEventListener('click', () => map.fit());
$('world').addEventListener('click', () => map.world());
$('in').addEventListener('click', () => map.zoom(0.5));
$('out').addEventListener('click', () => map.zoom(2));
addEventListener('hashchange', choose);
addEventListener('resize', () => [rate, latency].forEach((panel) => panel.show()));

// For tests, and for whoever looks around in the console.
window.veltrix = { map, troubles, heard, watch, get hunt() { return hunt; }, get status() { return status; } };

file('cities.csv').then((csv) => map.take(csv), () => {});
choose();
[statuses, board, cells].forEach((loop) => loop.run());
watch();
setInterval(tell, 250);
