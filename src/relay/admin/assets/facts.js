// Facts about one thing: labels and values that change.

import { h, setText } from './dom.js';

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

/** A table of a few rows without any order to choose, or `none` in its place; `make` as in a list. */
export class Rows {
  #columns;
  #body = h('tbody', { role: 'rowgroup' });
  #rows = [];
  #table;
  #none;

  constructor(label, columns, view, none = 'None.') {
    this.#columns = columns;
    const heads = columns.map((column) => h('th', { scope: 'col', role: 'columnheader', class: column.numeric ? 'numeric' : null, data: { column: column.id } }, column.label));
    this.#table = h('table', { role: 'table', 'aria-label': label, data: { view }, hidden: true }, h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, heads)), this.#body);
    this.#none = h('p', { class: 'empty' }, none);
    this.node = h('div', { class: 'table' }, this.#table, this.#none);
  }

  set(things) {
    this.#table.hidden = !things.length;
    this.#none.hidden = things.length > 0;
    while (this.#rows.length > things.length) this.#rows.pop().node.remove();
    while (this.#rows.length < things.length) {
      const updates = [];
      const node = h('tr', { role: 'row' }, this.#columns.map((column) => {
        const cell = h('td', { role: 'cell', class: column.numeric ? 'numeric' : null, data: { column: column.id, label: column.label } });
        updates.push(column.make(cell));
        return cell;
      }));
      node.querySelectorAll('a.open').forEach((link) => link.removeAttribute('tabindex'));
      this.#body.append(node);
      this.#rows.push({ node, updates });
    }
    things.forEach((thing, index) => this.#rows[index].updates.forEach((update) => update(thing)));
  }
}
