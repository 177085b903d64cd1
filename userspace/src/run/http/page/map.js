// The map. A cell's id is a Morton code of 30 bits of longitude and 30 of latitude;
// the server gives both as x and y. What there is of land are the cities that
// `veltrix load` and the demo play in.
//
//   canvas #ground   land, cities, cells        drawn anew when something changed
//   svg #lights      claims, one element each   grow, fade, and stay as a ring

const STEPS = 2 ** 30;
const LAT_MAX = 85.05;
const DEGREES_KM = 111.32;
/** Claims that keep their ring. */
const LIGHTS_MAX = 40;
/** Cells held at the most; those beyond are not taken in. */
const CELLS_MAX = 20000;
/** How close it gets: units of the whole world's width across the field. */
const SPAN_MIN = 0.000004;

const clamp = (v, min, max) => Math.min(max, Math.max(min, v));
const radians = (degrees) => (degrees * Math.PI) / 180;

/** Mercator, 0 to 1 from west to east and from north to south. */
export const across = (lon) => (lon + 180) / 360;
export function down(lat) {
  const phi = radians(clamp(lat, -LAT_MAX, LAT_MAX));
  return 0.5 - Math.log(Math.tan(Math.PI / 4 + phi / 2)) / (2 * Math.PI);
}
const latitude = (v) => (2 * Math.atan(Math.exp((0.5 - v) * 2 * Math.PI)) * 180) / Math.PI - 90;

/** Longitude and latitude of a cell's middle. */
export const lonOf = (x) => ((x + 0.5) / STEPS) * 360 - 180;
export const latOf = (y) => ((y + 0.5) / STEPS) * 180 - 90;

/** x and y of a cell id in decimal digits. */
export function position(id) {
  const squeeze = (code) => {
    let found = 0n;
    for (let bit = 0n; bit < 30n; bit++) found |= ((code >> (2n * bit)) & 1n) << bit;
    return Number(found);
  };
  const code = BigInt(id);
  return { x: squeeze(code), y: squeeze(code >> 1n) };
}

export class WorldMap {
  constructor(field, { onMove, onPick }) {
    this.field = field;
    this.ground = field.querySelector('#ground');
    this.lights = field.querySelector('#lights');
    this.inset = field.querySelector('#inset');
    this.tip = field.querySelector('#tip');
    this.cells = new Map();
    this.shown = [];
    this.cities = [];
    this.land = [];
    this.view = { u: 0.5, v: 0.42, span: 1 };
    this.isWorld = true;
    this.logTimeS = 0;
    this.onMove = onMove;
    this.onPick = onPick;
    this.listen();
    new ResizeObserver(() => this.resize()).observe(field);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.soon());
    this.resize();
  }

  /** `name,lat,lon,population` by row. */
  take(csv) {
    this.cities = csv.trim().split('\n').slice(1).map((row) => {
      const [name, lat, lon, people] = row.split(',');
      return { name, lat: +lat, lon: +lon, people: +people, u: across(+lon), v: down(+lat) };
    });
    this.land = landOf(this.cities);
    this.soon();
  }

  /** Another hunt: nothing is known of it. */
  clear() {
    this.cells.clear();
    this.lights.replaceChildren();
    this.soon();
  }

  /** A cell as the server gives it; an older answer does not undo a newer one. */
  put(cell, epoch) {
    const known = this.cells.get(String(cell.cell));
    if (!known && this.cells.size >= CELLS_MAX) return;
    if (known && known.epoch > epoch) return;
    const [u, v] = known ? [known.u, known.v] : [across(lonOf(cell.x)), down(latOf(cell.y))];
    this.cells.set(String(cell.cell), { ...cell, epoch, u, v });
    this.soon();
  }

  /** A claim that was applied: its cell lights up. */
  light(sample) {
    const { x, y } = position(sample.subject);
    const [u, v] = [across(lonOf(x)), down(latOf(y))];
    const known = this.cells.get(sample.subject);
    if (known && known.epoch <= sample.epoch && sample.kind === 'claim') {
      Object.assign(known, { remaining: 0, claimed_by: sample.player, epoch: sample.epoch });
    } else if (!known && this.cells.size < CELLS_MAX && sample.kind === 'claim') {
      const claimed = { kind: 'ticket', remaining: 0, claimed_by: sample.player };
      this.cells.set(sample.subject, { cell: sample.subject, x, y, u, v, epoch: sample.epoch, ...claimed });
    }
    const svg = 'http://www.w3.org/2000/svg';
    const light = document.createElementNS(svg, 'g');
    light.dataset.cell = sample.subject;
    light.dataset.player = sample.player;
    light.dataset.epoch = sample.epoch;
    light.dataset.kind = sample.kind;
    for (const name of ['flash', 'ring', 'core']) {
      const circle = document.createElementNS(svg, 'circle');
      circle.setAttribute('class', name);
      circle.setAttribute('r', { flash: 26, ring: 9, core: 3.5 }[name]);
      light.append(circle);
    }
    light.place = { u, v };
    this.set(light);
    this.lights.append(light);
    while (this.lights.childElementCount > LIGHTS_MAX) this.lights.firstElementChild.remove();
    this.soon();
  }

  set(light) {
    const [x, y] = this.at(light.place.u, light.place.v);
    light.setAttribute('transform', `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
  }

  /** Pixels of a place. */
  at(u, v) {
    const scale = this.width / this.view.span;
    return [(u - this.view.u) * scale + this.width / 2, (v - this.view.v) * scale + this.height / 2];
  }

  /** Cell coordinates of what is in view, with a little around it. */
  box() {
    const half = this.view.span * 0.55;
    const tall = (half * this.height) / this.width;
    const x = (u) => clamp(Math.floor(u * STEPS), 0, STEPS - 1);
    const y = (v) => clamp(Math.floor(((latitude(clamp(v, 0, 1)) + 90) / 180) * STEPS), 0, STEPS - 1);
    const { u, v } = this.view;
    const isWhole = v + tall >= 1 && v - tall <= 0;
    const [low, high] = isWhole ? [0, STEPS - 1] : [y(v + tall), y(v - tall)];
    return [x(u - half), low, x(u + half), high];
  }

  look(u, v, span) {
    this.isWorld = false;
    this.view = { u: clamp(u, 0, 1), v: clamp(v, 0, 1), span: clamp(span, SPAN_MIN, 1.05) };
    this.soon();
    clearTimeout(this.moved);
    this.moved = setTimeout(() => this.onMove(), 150);
  }

  world() {
    const tall = this.width / this.height;
    // From Patagonia to Scandinavia, whatever the shape of the field.
    this.look(0.515, 0.43, Math.max(0.94, 0.46 * tall));
    this.isWorld = true;
  }

  /** All cells that are known; the world when they are all over it. */
  fit() {
    const found = [...this.cells.values()];
    if (found.length === 0) return this.world();
    const sides = (name) => {
      let [min, max] = [1, 0];
      for (const cell of found) [min, max] = [Math.min(min, cell[name]), Math.max(max, cell[name])];
      return [min, max];
    };
    const [[west, east], [north, south]] = [sides('u'), sides('v')];
    const tall = ((south - north) * this.width) / this.height;
    const span = Math.max((east - west) * 1.25, tall * 1.25, 0.0004);
    if (span > 0.6) return this.world();
    this.look((west + east) / 2, (north + south) / 2, span);
  }

  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const { u, v, span } = this.view;
    const next = clamp(span * factor, SPAN_MIN, 1.05);
    const [dx, dy] = [(x - this.width / 2) / this.width, (y - this.height / 2) / this.width];
    this.look(u + dx * (span - next), v + dy * (span - next), next);
  }

  listen() {
    const { ground } = this;
    let held = null;
    ground.addEventListener('pointerdown', (e) => {
      held = { x: e.clientX, y: e.clientY, ...this.view };
      ground.setPointerCapture(e.pointerId);
    });
    ground.addEventListener('pointermove', (e) => {
      if (!held) return this.hover(e.offsetX, e.offsetY);
      const scale = held.span / this.width;
      this.look(held.u - (e.clientX - held.x) * scale, held.v - (e.clientY - held.y) * scale, held.span);
    });
    ground.addEventListener('pointerup', (e) => {
      const isClick = held && Math.abs(e.clientX - held.x) + Math.abs(e.clientY - held.y) < 4;
      held = null;
      const cell = isClick && this.nearest(e.offsetX, e.offsetY);
      if (cell) this.onPick(cell);
    });
    ground.addEventListener('pointerleave', () => (this.tip.hidden = true));
    ground.addEventListener('dblclick', (e) => this.zoom(0.4, e.offsetX, e.offsetY));
    ground.addEventListener('wheel', (e) => {
      e.preventDefault();
      this.zoom(Math.exp(clamp(e.deltaY, -200, 200) / 300), e.offsetX, e.offsetY);
    }, { passive: false });
  }

  nearest(x, y) {
    let [best, found] = [144, null];
    for (const dot of this.shown) {
      const far = (dot.x - x) ** 2 + (dot.y - y) ** 2;
      if (far < best) [best, found] = [far, dot.cell];
    }
    return found;
  }

  hover(x, y) {
    const cell = this.nearest(x, y);
    this.tip.hidden = !cell;
    if (!cell) return;
    const what = cell.kind ?? 'nothing';
    const over = this.isOver(cell) ? ', over' : '';
    const who = cell.claimed_by === null || cell.claimed_by === undefined ? '' : `, claimed by ${cell.claimed_by}`;
    const worth = cell.reward === undefined ? '' : `, worth ${cell.reward}`;
    this.tip.textContent = `${what}${worth}${who}${over}. Cell ${cell.cell}, seen at epoch ${cell.epoch}`;
    this.tip.style.left = `${clamp(x + 14, 0, this.width - 240)}px`;
    this.tip.style.top = `${clamp(y + 14, 0, this.height - 60)}px`;
  }

  isOver(cell) {
    return cell.remaining === 0 || Boolean(cell.expiry_s && this.logTimeS && cell.expiry_s <= this.logTimeS);
  }

  resize() {
    const { width, height } = this.field.getBoundingClientRect();
    if (width < 2 || height < 2) return;
    [this.width, this.height] = [width, height];
    const dots = devicePixelRatio || 1;
    this.ground.width = Math.round(width * dots);
    this.ground.height = Math.round(height * dots);
    if (this.isWorld) this.world();
    this.soon();
  }

  /** Draws before the next picture. */
  soon() {
    if (this.isDue || !this.width) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.draw();
    });
  }

  draw() {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    const pen = this.ground.getContext('2d');
    const dots = devicePixelRatio || 1;
    pen.setTransform(dots, 0, 0, dots, 0, 0);
    pen.fillStyle = color('sea');
    pen.fillRect(0, 0, this.width + 1, this.height + 1);
    this.drawGround(pen, color);
    this.drawCells(pen, color);
    this.drawCities(pen, color);
    for (const light of this.lights.children) this.set(light);
    this.drawInset(color);
    this.drawScale();
  }

  drawGround(pen, color) {
    const scale = this.width / this.view.span;
    const size = clamp((scale * 1.5) / 360, 2, 11) * 0.62;
    // Farther in, what stands for land says nothing.
    if (this.view.span > 0.02) {
      for (const { u, v, weight } of this.land) {
        const [x, y] = this.at(u, v);
        if (x < -9 || y < -9 || x > this.width + 9 || y > this.height + 9) continue;
        pen.globalAlpha = weight;
        pen.fillStyle = color('land');
        pen.beginPath();
        pen.arc(x, y, size / 2 + 0.6, 0, 7);
        pen.fill();
      }
      pen.globalAlpha = 1;
    } else {
      this.drawGrid(pen, color);
      this.drawRings(pen, color);
    }
  }

  /** Lines of longitude and latitude, at a round number of degrees. */
  drawGrid(pen, color) {
    const degrees = this.view.span * 360;
    const step = [10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001]
      .find((step) => degrees / step >= 5) ?? 0.0005;
    const digits = Math.max(0, -Math.floor(Math.log10(step)));
    const half = this.view.span / 2;
    const tall = (half * this.height) / this.width;
    pen.strokeStyle = color('grid');
    pen.fillStyle = color('faint');
    pen.lineWidth = 1;
    pen.font = '11px system-ui, sans-serif';
    const west = (this.view.u - half) * 360 - 180;
    for (let lon = Math.ceil(west / step) * step; across(lon) < this.view.u + half; lon += step) {
      const [x] = this.at(across(lon), 0);
      pen.beginPath();
      pen.moveTo(x, 0);
      pen.lineTo(x, this.height);
      pen.stroke();
      pen.fillText(`${Math.abs(lon).toFixed(digits)}° ${lon < 0 ? 'W' : 'E'}`, x + 4, 13);
    }
    const south = latitude(clamp(this.view.v + tall, 0, 1));
    for (let lat = Math.ceil(south / step) * step; down(lat) > this.view.v - tall; lat += step) {
      const [, y] = this.at(0, down(lat));
      pen.beginPath();
      pen.moveTo(0, y);
      pen.lineTo(this.width, y);
      pen.stroke();
      // Above are the other labels, below the scale.
      const isFree = y > 30 && y < this.height - 34;
      if (isFree) pen.fillText(`${Math.abs(lat).toFixed(digits)}° ${lat < 0 ? 'S' : 'N'}`, 6, y - 4);
      if (lat > LAT_MAX) break;
    }
  }

  /** Names where there is room; the largest first, as the file has them. */
  drawCities(pen, color) {
    const many = clamp(Math.round(14 / this.view.span), 14, 2000);
    const taken = [];
    pen.font = '600 11px system-ui, sans-serif';
    pen.lineJoin = 'round';
    for (const city of this.cities.slice(0, many)) {
      const [x, y] = this.at(city.u, city.v);
      if (x < 0 || y < 0 || x > this.width || y > this.height) continue;
      const near = taken.some((other) => Math.abs(other.x - x) < 78 && Math.abs(other.y - y) < 16);
      if (near) continue;
      taken.push({ x, y });
      pen.fillStyle = color('city');
      pen.beginPath();
      pen.arc(x, y, 1.8, 0, 7);
      pen.fill();
      pen.fillStyle = color('name');
      pen.strokeStyle = color('sea');
      pen.lineWidth = 3;
      pen.strokeText(city.name, x + 5, y + 4);
      pen.fillText(city.name, x + 5, y + 4);
    }
  }

  /** Circles of five and ten kilometres around the largest city in view. */
  drawRings(pen, color) {
    const isNear = (city) => Math.abs(city.u - this.view.u) < this.view.span / 2;
    const isInView = (city) => isNear(city) && Math.abs(city.v - this.view.v) * this.width < (this.view.span * this.height) / 2;
    const city = this.cities.find(isInView);
    if (!city) return;
    const [x, y] = this.at(city.u, city.v);
    const kilometre = this.width / this.view.span / (360 * DEGREES_KM * Math.cos(radians(city.lat)));
    pen.strokeStyle = color('ring');
    pen.lineWidth = 1;
    for (const kilometres of [5, 10]) {
      pen.beginPath();
      pen.arc(x, y, kilometres * kilometre, 0, 7);
      pen.stroke();
    }
  }

  drawCells(pen, color) {
    const colors = { item: color('item'), chest: color('chest'), ticket: color('ticket') };
    const gone = color('gone');
    const r = clamp(1.9 + Math.log10(1 / this.view.span) * 0.75, 2.2, 5.2);
    this.shown = [];
    const draw = (cell, isOver) => {
      const [x, y] = this.at(cell.u, cell.v);
      if (x < -r || y < -r || x > this.width + r || y > this.height + r) return;
      this.shown.push({ x, y, cell });
      pen.fillStyle = isOver ? gone : (colors[cell.kind] ?? gone);
      pen.beginPath();
      if (cell.kind === 'chest') {
        pen.rect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8);
      } else if (cell.kind === 'ticket') {
        pen.moveTo(x, y - r * 1.3);
        pen.lineTo(x + r * 1.3, y);
        pen.lineTo(x, y + r * 1.3);
        pen.lineTo(x - r * 1.3, y);
      } else {
        pen.arc(x, y, r, 0, 7);
      }
      pen.fill();
    };
    // What can still be had lies on top.
    for (const over of [true, false]) {
      for (const cell of this.cells.values()) if (this.isOver(cell) === over) draw(cell, over);
    }
  }

  /** Where on earth the view is. */
  drawInset(color) {
    this.inset.hidden = this.view.span > 0.35;
    if (this.inset.hidden) return;
    const pen = this.inset.getContext('2d');
    const { width, height } = this.inset;
    const [top, tall] = [0.2, 0.5];
    const at = (u, v) => [u * width, ((v - top) / tall) * height];
    pen.fillStyle = color('panel');
    pen.fillRect(0, 0, width, height);
    pen.fillStyle = color('land');
    for (const { u, v } of this.land) {
      const [x, y] = at(u, v);
      pen.fillRect(x - 0.6, y - 0.6, 1.2, 1.2);
    }
    const [x, y] = at(this.view.u, this.view.v);
    pen.strokeStyle = color('light');
    pen.lineWidth = 1.5;
    const side = Math.max(7, this.view.span * width);
    pen.strokeRect(x - side / 2, y - side / 2, side, side);
  }

  drawScale() {
    const [bar, text] = [this.field.querySelector('#scale-bar'), this.field.querySelector('#scale-text')];
    const lat = radians(latitude(clamp(this.view.v, 0, 1)));
    const kilometres = this.view.span * 360 * DEGREES_KM * Math.cos(lat);
    const steps = [5000, 2000, 1000, 500, 200, 100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01];
    const step = steps.find((step) => step / kilometres <= 0.2) ?? 0.005;
    bar.style.width = `${(step / kilometres) * this.width}px`;
    text.textContent = step >= 1 ? `${step} km` : `${step * 1000} m`;
  }
}

/** Dots of a grid that lie near a city: the continents, as far as people live there. */
function landOf(cities) {
  const step = 1.5;
  const found = new Map();
  for (const city of cities) {
    const reach = 2.4 + Math.min(1.6, city.people / 6e6);
    const wide = reach / Math.max(0.3, Math.cos(radians(city.lat)));
    for (let lat = Math.ceil((city.lat - reach) / step) * step; lat <= city.lat + reach; lat += step) {
      for (let lon = Math.ceil((city.lon - wide) / step) * step; lon <= city.lon + wide; lon += step) {
        const far = Math.hypot((lat - city.lat) / reach, (lon - city.lon) / wide);
        if (far > 1) continue;
        const key = `${lat},${lon}`;
        const weight = 0.35 + 0.65 * (1 - far);
        const dot = found.get(key);
        if (!dot || dot.weight < weight) found.set(key, { u: across(lon), v: down(lat), weight });
      }
    }
  }
  return [...found.values()];
}
