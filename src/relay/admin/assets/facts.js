// Facts about one thing: labels and values that change.

import { h, setText } from './dom.js';
import { body, head, row, table } from './table.js';

/** `rows`: `[label, value(thing)]`, where a value is text, or `{make(cell)}` as a column of a list. */
export class Facts {
  #updates = [];

  constructor(rows) {
    this.node = h('dl', { class: 'facts' }, rows.map(([label, value]) => {
      const cell = h('dd');
      this.#updates.push(value.make ? value.make(cell) : (thing) => setText(cell, value(thing)));
      return h('div', null, h('dt', null, label), cell);
    }));
  }

  set(thing) {
    this.#updates.forEach((update) => update(thing));
  }
}

/** The way back, the heading and what can be done. */
export function heading(back, name, ...actions) {
  return h('header', { class: 'heading' }, h('a', { class: 'back', href: back.href }, back.label), h('h1', { tabindex: -1 }, name), h('div', { class: 'actions' }, actions));
}

/** A table of a few rows without any order to choose, or `none` in its place. */
export class Rows {
  #columns;
  #body = body();
  #rows = [];
  #table;
  #none;

  constructor(label, columns, view, none = 'None.') {
    this.#columns = columns;
    this.#table = table(label, view, columns.map((column) => head(column)), this.#body);
    this.#table.hidden = true;
    this.#none = h('p', { class: 'empty' }, none);
    this.node = h('div', { class: 'table' }, this.#table, this.#none);
  }

  set(things) {
    this.#table.hidden = !things.length;
    this.#none.hidden = things.length > 0;
    while (this.#rows.length > things.length) this.#rows.pop().node.remove();
    while (this.#rows.length < things.length) {
      const added = row(this.#columns);
      added.node.querySelectorAll('a.open').forEach((link) => link.removeAttribute('tabindex'));
      this.#body.append(added.node);
      this.#rows.push(added);
    }
    things.forEach((thing, index) => this.#rows[index].set(thing));
  }
}
