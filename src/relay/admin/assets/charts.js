// Charts over time, by uPlot.

import { h, setText } from './dom.js';
import { now, number, rate, time, wait } from './format.js';

// A classic script, loaded before this one (index.html): the package has no small build as a module.
const { uPlot } = globalThis;

/** At first a chart is so many seconds wide, or it would stretch a few points. */
const LEAST_SPAN = 120;
const HEIGHT = 132;

/** Whole numbers on a scale that shows one beside ten thousand. */
const STEPS = [0, 1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000];

const CHARTS = [
  {
    title: 'Clients, logarithmic',
    series: [
      { column: 'alive', label: 'alive', colour: '--alive-fill', width: 2 },
      { column: 'away', label: 'away', colour: '--away-fill', width: 1.5, dash: [2, 3] },
      { column: 'late', label: 'late', colour: '--late-fill', width: 2, dash: [7, 3] },
      { column: 'dead', label: 'dead', colour: '--dead-fill', width: 2.5 },
    ],
    form: number,
    counted: true,
  },
  {
    title: 'Round trip',
    series: [
      { column: 'now', label: 'median', colour: '--line', width: 2, fill: true },
      { column: 'p99', label: 'p99', colour: '--late-fill', width: 1.5, dash: [5, 3] },
    ],
    form: wait,
  },
  {
    title: 'Requests per second',
    series: [{ column: 'requests', label: 'now', colour: '--line', width: 2, fill: true }],
    form: rate,
  },
];

class Chart {
  #plot = null;
  #values;
  #box = h('div', { class: 'plot', 'aria-hidden': 'true' });
  #when = h('span', { class: 'when' });

  constructor(chart, history) {
    Object.assign(this, { chart, history });
    this.#values = chart.series.map(() => h('b', { class: 'figure' }, '–'));
    const legend = chart.series.map((series, index) => {
      const key = h('i', { class: 'key', data: { series: series.column, dashed: series.dash ? 'yes' : 'no' } });
      return h('span', { class: 'legend' }, key, `${series.label} `, this.#values[index]);
    });
    const caption = h('figcaption', null, h('span', { class: 'name' }, chart.title, this.#when), h('span', { class: 'keys' }, legend));
    this.node = h('figure', { class: 'chart' }, caption, this.#box);
  }

  build() {
    this.#plot?.destroy();
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const { chart } = this;
    const axis = {
      stroke: colour('--muted'),
      font: '11px system-ui, sans-serif',
      grid: { stroke: colour('--grid'), width: 1 },
      ticks: { show: false },
    };
    const floor = chart.counted ? 3 : 1;
    const up = {
      range: (_, __, most) => [0, Math.max(floor, most * (chart.counted ? 1.6 : 1.15))],
      ...(chart.counted ? { distr: 4, asinh: 1 } : {}),
    };
    const left = {
      ...axis,
      size: 54,
      gap: 4,
      values: (_, splits) => splits.map((value) => (value === null ? '' : chart.form(value).replace('.00', '').replace('.0 ', ' '))),
      ...(chart.counted ? { splits: (_, __, low, high) => spread(STEPS.filter((value) => value >= low && value <= high)), filter: (_, all) => all } : { space: 32 }),
    };
    const options = {
      width: Math.max(120, this.#box.clientWidth),
      height: HEIGHT,
      // On the right, half of what is written below the last line.
      padding: [8, 24, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { setScale: false, x: false }, points: { size: 7 } },
      scales: { x: { time: true, range: () => width(this.history.columns.time) }, y: up },
      axes: [{ ...axis, size: 24, gap: 2, space: 70, values: (_, splits) => splits.map((at) => clock(at, splits)) }, left],
      series: [
        {},
        ...chart.series.map((series) => ({
          label: series.label,
          stroke: colour(series.colour),
          width: series.width,
          dash: series.dash,
          fill: series.fill ? colour('--area') : undefined,
          points: { show: false },
        })),
      ],
      hooks: { setCursor: [(plot) => this.#read(plot.cursor.idx)] },
    };
    this.#plot = new uPlot(options, this.#data(), this.#box);
    this.#read(null);
  }

  #data() {
    const { columns } = this.history;
    return [columns.time, ...this.chart.series.map((series) => columns[series.column])];
  }

  /** The values under the pointer, or the newest. */
  #read(index) {
    const { columns } = this.history;
    const at = index ?? columns.time.length - 1;
    setText(this.#when, index === null || index === undefined ? '' : ` at ${time(columns.time[at] * 1000)}`);
    this.chart.series.forEach((series, number) => setText(this.#values[number], this.chart.form(columns[series.column][at])));
  }

  update() {
    if (!this.#plot || !this.#box.clientWidth) return;
    this.#plot.setData(this.#data());
    this.#read(this.#plot.cursor.idx);
  }

  resize() {
    const width = this.#box.clientWidth;
    if (width && this.#plot && Math.abs(this.#plot.width - width) > 1) this.#plot.setSize({ width, height: HEIGHT });
  }

  destroy() {
    this.#plot?.destroy();
    this.#plot = null;
  }
}

/** The time of a line; without seconds where lines are whole minutes. */
function clock(at, lines) {
  const text = time(at * 1000);
  return lines.every((line) => line % 60 === 0) ? text.slice(0, -':00'.length) : text;
}

/** From when to when a chart goes. */
function width(times) {
  const high = times.at(-1) ?? now() / 1000;
  return [Math.min(times[0] ?? high, high - LEAST_SPAN), high];
}

/** At most four of the steps, so that they do not touch. */
function spread(steps) {
  const every = Math.ceil(steps.length / 4);
  return steps.filter((value, index) => value === 0 || (steps.length - 1 - index) % every === 0);
}

/** The three charts. */
export class Charts {
  #charts;
  #watch = new ResizeObserver(() => this.#charts.forEach((chart) => chart.resize()));

  constructor(history) {
    this.#charts = CHARTS.map((chart) => new Chart(chart, history));
    this.nodes = this.#charts.map((chart) => chart.node);
  }

  /** When they are in the page; again when its colours have changed. */
  build() {
    this.#charts.forEach((chart) => chart.build());
    this.nodes.forEach((node) => this.#watch.observe(node));
  }

  update() {
    this.#charts.forEach((chart) => chart.update());
  }

  close() {
    this.#watch.disconnect();
    this.#charts.forEach((chart) => chart.destroy());
  }
}
