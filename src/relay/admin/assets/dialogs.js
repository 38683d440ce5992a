// Questions before something is done, in the browser's own <dialog>.

import { h, setText } from './dom.js';
import { post } from './api.js';

function show(dialog) {
  document.body.append(dialog);
  const before = document.activeElement;
  dialog.addEventListener('close', () => {
    dialog.remove();
    before?.focus?.({ preventScroll: true });
  });
  dialog.showModal();
}

/** Shows something that only has to be closed. */
export function tell(heading, ...content) {
  const id = 'dialog-title';
  const close = h('button', { type: 'button', class: 'main', on: { click: () => dialog.close() } }, 'Close');
  const dialog = h('dialog', { 'aria-labelledby': id, class: 'wide' }, h('h2', { id }, heading), content, h('div', { class: 'answers' }, close));
  show(dialog);
  close.focus();
}

/**
 * Asks, and on yes posts to `path`. `field`: `{label, value, hint}` for one input whose text `body(text)` puts into the
 * JSON. What the relay refuses is shown in the dialog, which stays open. `done` gets the sentence of the relay.
 */
export function ask({ heading, text, verb, danger = false, field = null, path, body = () => ({}), done }) {
  const [title, about] = ['dialog-title', 'dialog-text'];
  const error = h('p', { class: 'error', role: 'alert' });
  const input = field && h('input', { id: 'dialog-field', value: field.value, autocomplete: 'off', spellcheck: 'false', 'aria-describedby': 'dialog-hint' });
  const yes = h('button', { type: 'submit', class: danger ? 'danger' : 'main' }, verb);
  const no = h('button', { type: 'button', on: { click: () => dialog.close() } }, 'Cancel');
  const form = h(
    'form',
    { method: 'dialog' },
    h('h2', { id: title }, heading),
    h('p', { id: about }, text),
    field && h('p', { class: 'field' }, h('label', { for: 'dialog-field' }, field.label), input, h('span', { id: 'dialog-hint', class: 'hint' }, field.hint)),
    error,
    h('div', { class: 'answers' }, no, yes),
  );
  const dialog = h('dialog', { 'aria-labelledby': title, 'aria-describedby': about }, form);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    yes.disabled = true;
    setText(error, '');
    try {
      const answer = await post(path, body(input?.value.trim()));
      dialog.close();
      done(answer.done);
    } catch (refused) {
      setText(error, refused.message);
      yes.disabled = false;
      (input ?? no).focus();
    }
  });
  show(dialog);
  // Enter does nothing that cannot be undone.
  (input ?? (danger ? no : yes)).focus();
}
