// A histogram of round trips.

import { h, setText } from './dom.js';
import { number, wait } from './format.js';

export class Spread {
  #rows = h('tbody');
  #none = h('p', { class: 'empty' }, 'No ping was answered yet.');
  #table = h('table', { class: 'spread', 'aria-label': 'Round trips by length' }, h('thead', null, h('tr', null, h('th', { scope: 'col' }, 'Up to'), h('th', { scope: 'col' }, 'Share'), h('th', { scope: 'col', class: 'numeric' }, 'Pongs'))), this.#rows);
  node = h('div', null, this.#table, this.#none);

  set(buckets) {
    const used = buckets.map((bucket, index) => (bucket.count ? index : -1)).filter((index) => index >= 0);
    this.#table.hidden = !used.length;
    this.#none.hidden = used.length > 0;
    // One empty bucket on either side shows where it ends.
    const shown = used.length ? buckets.slice(Math.max(0, used[0] - 1), used.at(-1) + 2) : [];
    const most = Math.max(1, ...shown.map((bucket) => bucket.count));
    while (this.#rows.children.length > shown.length) this.#rows.lastElementChild.remove();
    while (this.#rows.children.length < shown.length) this.#rows.append(h('tr', null, h('th', { scope: 'row' }), h('td', null, h('span', { class: 'share' })), h('td', { class: 'numeric' })));
    shown.forEach((bucket, index) => {
      const [name, share, total] = this.#rows.children[index].children;
      setText(name, bucket.below_ms === null ? 'more' : wait(bucket.below_ms));
      share.firstElementChild.style.width = bucket.count ? `max(2px, ${(100 * bucket.count) / most}%)` : '0';
      setText(total, number(bucket.count));
    });
  }
}
