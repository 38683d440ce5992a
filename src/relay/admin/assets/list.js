// A list whose search, order and pages are the relay's: a table, or cards where there is little room.

import { get, query, Refused, unanswered } from './api.js';
import { h, setAttribute, setText, settled } from './dom.js';
import { count, number, title } from './format.js';
import { address, go } from './route.js';
import { body, head, row, table } from './table.js';

const SIZES = [25, 50, 100, 200];
const SIZE = 50;
const TYPING = 200;

/**
 * `spec`: `view`, `path` of its JSON, `rows` (the field with the rows), `noun`, `label` and `key(row)`; `columns` as of a
 * table, with `sort` (the relay's word), `first` (`desc` where the greatest is wanted first) and `about`; `filter`: `{name,
 * label, options, look(option)}`; `sort` and `order` without a choice; `hint` below an empty list.
 */
export class List {
  #spec;
  #page;
  #values = {};
  #rows = new Map();
  #shown = null;
  #asked = null;
  #said = '';
  #body = body();
  #heads = new Map();
  #empty = h('p', { class: 'empty', hidden: true });
  #count = h('span', { class: 'count' });
  #failed = h('p', { class: 'error', role: 'alert', hidden: true });
  #search;
  #typed;
  #chips = [];
  #order;
  #size;
  #steps = {};

  constructor(spec, page) {
    this.#spec = spec;
    this.#page = page;
    this.node = h('section', { class: 'list', 'aria-label': spec.label }, this.#toolbar(), this.#failed, this.#table(), this.#empty, this.#pager());
  }

  // What it stands on.

  #toolbar() {
    const { noun, filter, columns } = this.#spec;
    this.#typed = settled(TYPING, () => this.#change({}, true));
    this.#search = h('input', {
      type: 'search', class: 'search', placeholder: `Search ${noun}s`, 'aria-label': `Search ${noun}s`,
      'aria-keyshortcuts': '/', autocomplete: 'off', spellcheck: 'false', on: { input: this.#typed },
    });
    this.#chips = filter.options.map((option) =>
      h('button', { type: 'button', class: 'chip', 'aria-pressed': 'false', data: { value: option, look: filter.look(option) }, on: { click: () => this.toggle(option) } },
        h('i', { class: 'shape', 'aria-hidden': 'true' }), title(option)));
    const chips = h('div', { class: 'chips', role: 'group', 'aria-label': filter.label }, this.#chips);
    const options = columns.filter((column) => column.sort).flatMap((column) => [
      h('option', { value: `${column.sort} asc` }, `${column.label}, ascending`),
      h('option', { value: `${column.sort} desc` }, `${column.label}, descending`),
    ]);
    this.#order = options.length > 0 && h('select', {
      'aria-label': 'Order', on: { change: () => { const [sort, order] = this.#order.value.split(' '); this.#change({ sort, order }); } },
    }, options);
    return h('div', { class: 'bar' }, this.#search, chips, this.#order && h('span', { class: 'order' }, this.#order), this.#count);
  }

  #table() {
    const { columns, label } = this.#spec;
    const heads = columns.map((column) => {
      if (!column.sort) return head(column);
      const button = h('button', { type: 'button', title: column.about, on: { click: () => this.#sort(column) } }, column.label, h('i', { class: 'arrow', 'aria-hidden': 'true' }));
      const cell = head(column, button);
      this.#heads.set(column.sort, cell);
      return cell;
    });
    this.#body.addEventListener('keydown', (event) => this.#keys(event));
    this.#body.addEventListener('focusin', (event) => this.#rove(event.target.closest('tr')));
    return h('div', { class: 'table' }, table(label, this.#spec.view, heads, this.#body));
  }

  #pager() {
    const step = (name, label, by) => {
      this.#steps[name] = h('button', { type: 'button', on: { click: () => this.turn(by) } }, label);
      return this.#steps[name];
    };
    this.#size = h('select', { 'aria-label': 'Rows on a page', on: { change: () => this.#change({ size: this.#size.value }) } },
      SIZES.map((size) => h('option', { value: size }, `${size} rows`)));
    this.#steps.where = h('span', { class: 'where' });
    return h('nav', { class: 'pager', 'aria-label': 'Pages' }, step('first', 'First', -Infinity), step('back', 'Back', -1), this.#steps.where, step('next', 'Next', 1), step('last', 'Last', Infinity), this.#size);
  }

  // What is asked for.

  /** Shows what the address says. */
  update(values) {
    this.#values = values;
    const wanted = this.#wanted();
    if (document.activeElement !== this.#search) this.#search.value = wanted.search;
    const chosen = this.#chosen();
    for (const chip of this.#chips) setAttribute(chip, 'aria-pressed', chosen.includes(chip.dataset.value));
    for (const [sort, cell] of this.#heads) {
      setAttribute(cell, 'aria-sort', sort === wanted.sort ? (wanted.order === 'desc' ? 'descending' : 'ascending') : null);
    }
    if (this.#order) this.#order.value = `${wanted.sort} ${wanted.order}`;
    this.#size.value = String(wanted.size);
    this.#page.live.want(this.#spec.view, wanted);
    this.#ask(wanted);
  }

  #wanted() {
    const { sort, order, filter, columns } = this.#spec;
    const { search = '', page = '1', size = '', ...others } = this.#values;
    const wanted = { search, page: Math.max(1, Number.parseInt(page, 10) || 1), size: SIZES.includes(Number(size)) ? Number(size) : SIZE };
    // Addresses are typed, too: what is not known stands for nothing.
    const sorts = columns.some((column) => column.sort && column.sort === others.sort);
    if (sort) Object.assign(wanted, { sort: sorts ? others.sort : sort, order: ['asc', 'desc'].includes(others.order) ? others.order : order });
    wanted[filter.name] = this.#chosen().join(',');
    return wanted;
  }

  #chosen() {
    const { name, options } = this.#spec.filter;
    return (this.#values[name] ?? '').split(',').filter((option) => options.includes(option));
  }

  /** The answer comes sooner than the stream's next page; both are the same. */
  async #ask(wanted) {
    this.#asked?.abort();
    this.#asked = new AbortController();
    const { signal } = this.#asked;
    const page = await get(this.#spec.path, wanted, signal).catch((error) => {
      // Without a connection the notice above says so.
      this.#failed.hidden = !(error instanceof Refused);
      setText(this.#failed, error.message);
      return unanswered(error);
    });
    if (!page || signal.aborted) return;
    this.show(page);
    this.#say(page.total);
  }

  #change(values, quietly = false) {
    // With what was typed until now.
    this.#typed.cancel();
    const next = { ...this.#values, page: '', search: this.#search.value.trim(), ...values };
    if (values.size && Number(values.size) === SIZE) next.size = '';
    go(address(this.#spec.view, null, next), quietly);
  }

  #sort(column) {
    const { sort, order } = this.#wanted();
    const first = column.first ?? 'asc';
    const other = first === 'asc' ? 'desc' : 'asc';
    this.#change({ sort: column.sort, order: sort === column.sort && order === first ? other : first });
  }

  /** Puts one choice of the filter in or takes it out. */
  toggle(option) {
    const chosen = new Set(this.#chosen());
    if (!chosen.delete(option)) chosen.add(option);
    this.#change({ [this.#spec.filter.name]: [...chosen].join(',') });
  }

  chosen(option) {
    return this.#chosen().includes(option);
  }

  turn(by) {
    const pages = this.#pages();
    const { page } = this.#wanted();
    const next = Math.min(Math.max(1, page + by), pages);
    if (next !== page) this.#change({ page: next === 1 ? '' : next });
  }

  #pages() {
    return this.#shown ? Math.max(1, Math.ceil(this.#shown.total / this.#wanted().size)) : 1;
  }

  // What is shown.

  /** A page of the relay's. */
  show(page) {
    this.#failed.hidden = true;
    this.#shown = page;
    this.#fill(page[this.#spec.rows]);
    const [wanted, pages] = [this.#wanted(), this.#pages()];
    const begin = (wanted.page - 1) * wanted.size;
    const rows = page[this.#spec.rows].length;
    setText(this.#count, page.total === 0 ? '' : [0, page.total].includes(rows) ? count(page.total, this.#spec.noun) : `${number(begin + 1)}–${number(begin + rows)} of ${number(page.total)}`);
    setText(this.#steps.where, wanted.page > pages ? `Behind page ${number(pages)}` : `Page ${number(wanted.page)} of ${number(pages)}`);
    for (const name of ['first', 'back']) this.#steps[name].disabled = wanted.page <= 1;
    for (const name of ['next', 'last']) this.#steps[name].disabled = wanted.page >= pages;
    this.#empty.hidden = rows > 0;
    if (rows === 0) setText(this.#empty, this.#words());
  }

  #words() {
    const { search, page } = this.#wanted();
    if (page > 1 && this.#shown.total > 0) return 'This page is behind the last one.';
    if (search || this.#chosen().length) return `No ${this.#spec.noun} fits.`;
    return this.#spec.hint;
  }

  #say(total) {
    const said = `${count(total, this.#spec.noun)} found`;
    const about = query({ ...this.#wanted(), page: '', sort: '', order: '' });
    if (this.#said && this.#said !== about) this.#page.say(said);
    this.#said = about;
  }

  /** Rows stay who they are while they move, and those that go are taken for those that come. */
  #fill(rows) {
    const { key } = this.#spec;
    const [before, ids] = [this.#rows, new Set(rows.map(key))];
    const focused = this.#body.contains(document.activeElement) ? document.activeElement : null;
    const spare = new Map([...before].filter(([id]) => !ids.has(id)).map(([, gone]) => [gone.node, gone]));
    this.#rows = new Map();
    let place = this.#body.firstElementChild;
    for (const values of rows) {
      const id = key(values);
      // One that goes is taken where it stands, so that nothing moves when a page is turned.
      const free = place && spare.get(place);
      const taken = before.get(id) ?? free ?? spare.values().next().value ?? this.#row();
      spare.delete(taken.node);
      this.#rows.set(id, taken);
      taken.set(values);
      if (taken.node === place) place = place.nextElementSibling;
      else this.#body.insertBefore(taken.node, place);
    }
    while (place) {
      const next = place.nextElementSibling;
      place.remove();
      place = next;
    }
    if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
    if (!this.#body.querySelector('[tabindex="0"]')) this.#rove(this.#body.firstElementChild);
  }

  #row() {
    const made = row(this.#spec.columns);
    made.node.addEventListener('click', (event) => {
      if (event.target.closest('a, button') || getSelection()?.toString()) return;
      made.node.querySelector('a.open')?.click();
    });
    return made;
  }

  // Keys: one row is in the tab order, arrows choose which.

  #rove(row) {
    const stop = row?.querySelector('a.open, button');
    if (!stop || stop.tabIndex === 0) return;
    this.#body.querySelectorAll('[tabindex="0"]').forEach((other) => setAttribute(other, 'tabindex', -1));
    setAttribute(stop, 'tabindex', 0);
  }

  #keys(event) {
    const row = event.target.closest('tr');
    const to = {
      ArrowDown: () => row.nextElementSibling,
      ArrowUp: () => row.previousElementSibling,
      Home: () => this.#body.firstElementChild,
      End: () => this.#body.lastElementChild,
    }[event.key];
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (to) {
      event.preventDefault();
      this.#focus(to());
    } else if (event.key === 'PageDown' || event.key === 'PageUp') {
      event.preventDefault();
      this.turn(event.key === 'PageDown' ? 1 : -1);
    }
  }

  #focus(row) {
    const stop = row?.querySelector('a.open, button');
    stop?.focus();
    stop?.scrollIntoView({ block: 'nearest' });
  }

  /** The next row, or the one before. */
  move(by) {
    const row = this.#body.contains(document.activeElement) ? document.activeElement.closest('tr') : null;
    if (!row) this.#focus(this.#body.querySelector('[tabindex="0"]')?.closest('tr'));
    else this.#focus(by > 0 ? row.nextElementSibling : row.previousElementSibling);
  }

  focusSearch() {
    this.#search.focus();
    this.#search.select();
  }

  close() {
    this.#typed.cancel();
    this.#asked?.abort();
  }
}
