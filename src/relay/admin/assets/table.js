// Tables of columns: each has `id`, `label`, `numeric`, and `make(cell)`, which fills a cell once and gives what updates it.

import { h, setText } from './dom.js';

const kind = (column) => (column.numeric ? 'numeric' : null);

/** The head of a column with its label, or with `content`. */
export const head = (column, content = column.label) =>
  h('th', { scope: 'col', role: 'columnheader', class: kind(column), data: { column: column.id } }, content);

export const body = () => h('tbody', { role: 'rowgroup' });

/** Roles are said, as style makes other things of tables and rows. */
export const table = (label, view, heads, rows) =>
  h('table', { role: 'table', 'aria-label': label, data: { view } }, h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, heads)), rows);

/** `{node, set(thing)}`. */
export function row(columns) {
  const updates = [];
  const cells = columns.map((column) => {
    const cell = h('td', { role: 'cell', class: kind(column), data: { column: column.id, label: column.label } });
    updates.push(column.make(cell));
    return cell;
  });
  return {
    node: h('tr', { role: 'row' }, cells),
    set(thing) {
      for (const update of updates) update(thing);
    },
  };
}

/** A column of text. */
export const text = (id, label, value, more = {}) => ({
  id,
  label,
  make: (cell) => (thing) => setText(cell, value(thing)),
  ...more,
});

/** A column of a mark: `make()` gives one. */
export const marked = (id, label, make, value, more = {}) => ({
  id,
  label,
  make(cell) {
    const mark = make();
    cell.append(mark.node);
    return (thing) => mark.set(value(thing));
  },
  ...more,
});
