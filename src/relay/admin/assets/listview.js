// A view that is a list, and what stands above it.

import { h } from './dom.js';
import { List } from './list.js';
import { VIEWS } from './route.js';

export class ListView {
  constructor(spec, page) {
    this.title = VIEWS[spec.view];
    this.list = new List(spec, page);
    this.node = h('div', { class: 'view' }, this.list.node);
  }

  update(values) {
    this.list.update(values);
  }

  page(page) {
    this.list.show(page);
  }

  close() {
    this.list.close();
  }
}
