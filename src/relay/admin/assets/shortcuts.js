// What keys do, and the page that lists them.

import { tell } from './dialogs.js';
import { h } from './dom.js';
import { address, go, VIEWS } from './route.js';

/** Whoever speaks to the machine, or rests a hand on the keys, can switch single letters off (WCAG 2.1.4). */
const KEPT = 'adit-single-keys';

const on = () => localStorage.getItem(KEPT) !== 'off';

/** `page`: `view()` that is shown, `pause()`. */
export function listen(page) {
  const list = (act) => () => page.view()?.list && act(page.view().list);
  const keys = [
    ...Object.entries(VIEWS).map(([view, name], index) => [String(index + 1), name, () => go(address(view))]),
    ['/', 'Search', list((shown) => shown.focusSearch())],
    ['j', 'Next row', list((shown) => shown.move(1))],
    ['k', 'Row before', list((shown) => shown.move(-1))],
    ['n', 'Next page', list((shown) => shown.turn(1))],
    ['b', 'Page before', list((shown) => shown.turn(-1))],
    ['p', 'Pause what moves, or go on', () => page.pause()],
    ['?', 'This list', () => show(keys)],
  ];
  addEventListener('keydown', (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || document.querySelector('dialog[open]')) return;
    if (event.key === 'Escape') {
      back(event.target, page.view());
      return;
    }
    if (event.target.closest?.('input, select, textarea') || !on()) return;
    const found = keys.find(([key]) => key === event.key);
    if (found) {
      event.preventDefault();
      found[2]();
    }
  });
  return () => show(keys);
}

/** Escape leaves a search, then a detail. */
function back(target, view) {
  if (target.matches?.('input')) {
    target.value = '';
    target.dispatchEvent(new Event('input'));
    target.blur();
  } else if (view?.heading) {
    view.heading.querySelector('.back').click();
  }
}

function show(keys) {
  const more = [['↑ ↓ Home End', 'Choose a row of a table'], ['Page up, Page down', 'Turn its pages'], ['Enter', 'Open what is chosen'], ['Esc', 'Leave the search, a question or a detail']];
  const rows = [...keys, ...more].map(([key, what]) => h('div', null, h('dt', null, h('kbd', null, key)), h('dd', null, what)));
  const box = h('input', { type: 'checkbox', checked: on(), on: { change: () => localStorage.setItem(KEPT, box.checked ? 'on' : 'off') } });
  tell('Keyboard', h('dl', { class: 'shortcuts' }, rows), h('label', { class: 'check' }, box, ' Single keys do these things'));
}
