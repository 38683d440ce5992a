// One thing, closely: what its page has, whatever it is.

import { get, unanswered } from './api.js';
import { Asking } from './asking.js';
import { h, setText } from './dom.js';
import { ROWS } from './events.js';
import { heading, Rows } from './facts.js';
import { time } from './format.js';
import { address, VIEWS } from './route.js';

/** Events that are looked at, and those that are shown. */
const LOOKED = 50;
const SHOWN = 10;

/**
 * A page comes of this with `name(thing)`, the name of its tunnel; `set(thing)`, which shows it; `missing(signal)`, which
 * says by `gone` that there is none; and it puts its parts into `parts`.
 */
export class Detail {
  /** What was shown last. */
  thing = null;
  buttons;
  #page;
  #view;
  #mark;
  #asking;
  #parts = [];
  #events = new Rows('Events of this tunnel', ROWS.filter((column) => !['tunnel', 'owner'].includes(column.id)), 'events');
  #happened = [];
  #newest = 0;
  #why = h('span');
  #list = h('a');
  #gone = h('p', { class: 'notice', role: 'status', hidden: true }, this.#why, this.#list);

  /** `actions`: `[label, action(thing, done), danger]`. */
  constructor(page, { view, title, path, mark, actions }) {
    this.#page = page;
    this.#view = view;
    this.#mark = mark;
    this.title = title;
    this.#asking = new Asking(path, (thing) => this.#show(thing), (signal) => this.missing(signal));
    const done = (sentence) => {
      page.toast(sentence);
      this.#asking.ask();
    };
    this.buttons = actions.map(([label, action, danger]) =>
      h('button', { type: 'button', class: danger ? 'danger' : null, disabled: true, on: { click: () => action(this.thing, done) } }, label));
    this.heading = heading({ href: address(view), label: VIEWS[view] }, title, mark.node, ...this.buttons);
    this.node = h('div', { class: 'view detail' }, this.heading, this.#gone);
  }

  /** What is below the heading; the events of its tunnel come last. */
  parts(...parts) {
    this.#parts = [...parts, h('section', { class: 'panel' }, h('h2', null, 'Events'), this.#events.node)];
    this.node.append(...this.#parts);
  }

  update() {
    this.#want();
    this.#asking.ask();
  }

  tick() {
    this.#asking.ask(true);
  }

  rest() {
    this.#asking.rest();
  }

  /** Without a name, nothing but the summaries: whether the relay is there is to be seen all the same. */
  #want() {
    this.#page.live.want('events', this.thing ? { search: this.name(this.thing), size: LOOKED } : { size: 1 });
  }

  #show(thing) {
    const name = this.name(thing);
    const first = !this.thing || this.name(this.thing) !== name;
    this.thing = thing;
    this.title = name;
    setText(this.heading.querySelector('h1'), name);
    this.#gone.hidden = true;
    this.#parts.forEach((part) => { part.hidden = false; });
    this.set(thing);
    if (!first) return;
    this.#want();
    this.#load(name);
    this.#page.named();
  }

  /** The answer comes sooner than the stream's next page; both are the same. */
  async #load(name) {
    const page = await get('/api/events', { search: name, size: LOOKED }).catch(unanswered);
    if (page) this.page(page);
  }

  page(page) {
    if (!page.events || !this.thing || page.newest < this.#newest) return;
    this.#newest = page.newest;
    this.#happened = page.events.filter((event) => event.tunnel === this.name(this.thing));
    this.#events.set(this.#happened.slice(0, SHOWN));
  }

  enable(on) {
    this.buttons.forEach((button) => { button.disabled = !on; });
  }

  /** `, since 23:14:30`, by the newest event of these kinds; empty where there is none. */
  since(kinds) {
    const last = this.#happened.find(({ kind }) => kinds.includes(kind));
    return last ? `, since ${time(last.at)}` : '';
  }

  /** Says that there is no such thing, and where the others are; what was known of it stays. */
  gone(word, why, link, values = {}) {
    this.#mark.say('away', word);
    setText(this.#why, why);
    setText(this.#list, link);
    this.#list.href = address(this.#view, null, values);
    this.#gone.hidden = false;
    this.#parts.forEach((part) => { part.hidden = !this.thing; });
    this.enable(false);
  }

  close() {
    this.#asking.close();
  }
}
