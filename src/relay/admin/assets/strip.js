// The last hour of a client: a tick for each half minute, drawn and told.

import { h, setAttribute } from './dom.js';
import { count, span, time } from './format.js';

/** What a tick stands for. */
const SLOT = 30_000;
const LETTERS = 16;
const MISSED = 'x';
const NOTHING = '.';

/** 0 (under 1 ms) to 15 (over 16 s); -1: no letter. */
const step = (tick) => (tick >= 'a' && tick <= 'p' ? tick.charCodeAt(0) - 97 : -1);

/** `under 8 ms`. */
function bound(tick) {
  const value = step(tick);
  if (value < 0) return '';
  if (value === LETTERS - 1) return 'over 16 s';
  const ms = 2 ** value;
  return ms < 1000 ? `under ${ms} ms` : `under ${Math.round(ms / 1000)} s`;
}

/** What the tick says. */
function word(tick) {
  if (tick === MISSED) return 'no answer';
  return step(tick) < 0 ? 'not asked' : `answered in ${bound(tick)}`;
}

/** When the tick with that index began. */
const begin = (strip, index, now) => now - (strip.length - index) * SLOT;

/** The strip in a sentence, for whoever does not see it. */
export function tell(strip) {
  let [asked, missed, slowest, last] = [0, 0, '', -1];
  for (let index = 0; index < strip.length; index += 1) {
    const tick = strip[index];
    if (tick === NOTHING) continue;
    asked += 1;
    if (tick === MISSED) [missed, last] = [missed + 1, index];
    else if (tick > slowest) slowest = tick;
  }
  if (!asked) return 'Nothing was asked in the last hour';
  const sentence = `Last hour: ${count(asked - missed, 'half minute')} answered, ${missed || 'none'} missed`;
  const when = missed ? `, the last ${span((strip.length - last) * SLOT)} ago` : '';
  return `${sentence}${when}${slowest ? `; slowest ${bound(slowest)}` : ''}`;
}

/** Colours of the page as they are now; canvases know no CSS. */
let colours = null;

function paint() {
  if (!colours) {
    const style = getComputedStyle(document.documentElement);
    const names = { fast: '--tick-fast', slow: '--tick-slow', worst: '--tick-worst', missed: '--dead-fill', nothing: '--tick-nothing' };
    colours = Object.fromEntries(Object.entries(names).map(([key, name]) => [key, style.getPropertyValue(name).trim()]));
  }
  return colours;
}

/** Strips by their nodes, and gone with them. */
const strips = new WeakMap();

/** All strips of the page again, in the colours of the other theme. */
export function repaint() {
  colours = null;
  document.querySelectorAll('canvas.strip').forEach((node) => strips.get(node)?.draw());
}

function sort(tick) {
  if (tick === MISSED) return 'missed';
  const value = step(tick);
  if (value < 0) return 'nothing';
  if (value < 7) return 'fast';
  return value < 10 ? 'slow' : 'worst';
}

/** A canvas with a strip. The height of a tick is its round trip; one that was missed goes through, and has a foot. */
export class Strip {
  node = h('canvas', { class: 'strip', role: 'img', 'aria-label': 'Pings of the last hour' });
  #shown = null;
  #width;
  #height;

  constructor(width, height) {
    this.resize(width, height);
    strips.set(this.node, this);
  }

  resize(width, height) {
    if (width === this.#width && height === this.#height) return;
    const scale = Math.max(1, Math.round(devicePixelRatio * 2) / 2);
    Object.assign(this.node, { width: Math.round(width * scale), height: Math.round(height * scale) });
    this.node.style.width = `${width}px`;
    this.node.style.height = `${height}px`;
    [this.#width, this.#height] = [width, height];
    if (this.#shown) this.draw();
  }

  set(strip) {
    if (strip === this.#shown) return;
    this.#shown = strip;
    this.draw();
    setAttribute(this.node, 'aria-label', tell(strip));
  }

  draw() {
    const strip = this.#shown;
    const context = this.node.getContext('2d');
    if (!context || strip === null) return;
    const { width, height } = this.node;
    const fills = paint();
    context.clearRect(0, 0, width, height);
    const parts = { nothing: [], fast: [], slow: [], worst: [], missed: [] };
    for (let index = 0; index < strip.length; index += 1) parts[sort(strip[index])].push(index);
    for (const [name, indexes] of Object.entries(parts)) {
      context.fillStyle = fills[name];
      for (const index of indexes) {
        const [left, right] = [Math.round((index * width) / strip.length), Math.round(((index + 1) * width) / strip.length)];
        const wide = Math.max(1, right - left - (right - left > 2 ? 1 : 0));
        if (name === 'missed') {
          context.fillRect(left, 0, wide, height);
        } else {
          const share = name === 'nothing' ? 0.06 : 0.25 + (0.6 * step(strip[index])) / (LETTERS - 1);
          const tall = Math.max(1, Math.round(height * share));
          context.fillRect(left, height - tall, wide, tall);
        }
      }
    }
  }
}

/** What a point of a strip's width stands for: `23:14:30, answered in under 8 ms`. */
export function at(strip, share, now) {
  const index = Math.min(strip.length - 1, Math.max(0, Math.floor(share * strip.length)));
  return `${time(begin(strip, index, now))}: ${word(strip[index])}`;
}

/** Moments without an answer, newest first, neighbours together. */
export function misses(strip, now) {
  const found = [];
  for (let index = strip.length - 1; index >= 0; index -= 1) {
    if (strip[index] !== MISSED) continue;
    let first = index;
    while (strip[first - 1] === MISSED) first -= 1;
    found.push({ from: begin(strip, first, now), length: (index - first + 1) * SLOT });
    index = first;
  }
  return found;
}
