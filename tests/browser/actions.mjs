// What an operator does, each after a question.

import assert from 'node:assert/strict';
import { column, enter, go, row, run, until } from './shared.mjs';

await run(async (browser) => {
  const page = await enter(browser);
  const ask = async (button) => {
    await page.locator('.heading').getByRole('button', { name: button, exact: true }).click();
    return page.getByRole('dialog');
  };
  const said = (text) => until(`"${text}" is said`, async () => (await page.innerText('#toasts')).includes(text));
  const state = (word) => until(`it is ${word}`, async () => (await page.innerText('.heading .mark')) === word);

  // Nothing is done before yes, and no is what Enter means where it hurts.
  await row(page, 'simple').locator('a.open').click();
  await state('Alive');
  await ask('Disconnect');
  await page.keyboard.press('Enter');
  await until('the question is gone', async () => (await page.locator('dialog').count()) === 0);
  await ask('Disconnect');
  await page.keyboard.press('Escape');
  await until('the question is gone', async () => (await page.locator('dialog').count()) === 0);
  await state('Alive');
  // A client of the base protocol cannot be told anything: the question says why it failed and stays.
  let dialog = await ask('Drain');
  await dialog.getByRole('button', { name: 'Drain' }).click();
  await until('why not', async () => /no word for that/.test(await dialog.getByRole('alert').innerText()));
  await dialog.getByRole('button', { name: 'Cancel' }).click();
  dialog = await ask('Disconnect');
  await dialog.getByRole('button', { name: 'Disconnect' }).click();
  await said('The client of simple is disconnected.');
  await until('it is gone', async () => ['Away', 'Dead'].includes(await page.innerText('.heading .mark')));

  // A client that understands it comes back with another session.
  await go(page, '#/fleet?search=real');
  await until('the real one', async () => (await column(page, 'tunnel')).join() === 'real');
  await row(page, 'real').locator('a.open').click();
  await state('Alive');
  const before = await page.evaluate(() => location.hash);
  dialog = await ask('Drain');
  await dialog.getByRole('button', { name: 'Drain' }).click();
  await said('The client of real is told to connect anew.');
  await until('the view goes with it', async () => (await page.evaluate(() => location.hash)) !== before);
  await state('Alive');

  // Tunnels.
  await go(page, '#/tunnels?search=real');
  await row(page, 'real').locator('a.open').click();
  await state('Online');
  dialog = await ask('Suspend');
  await dialog.getByRole('button', { name: 'Suspend' }).click();
  await state('Suspended');
  dialog = await ask('Resume');
  await dialog.getByRole('button', { name: 'Resume' }).click();
  await state('Online');
  dialog = await ask('Extend');
  await dialog.getByLabel('Time').fill('soon');
  await page.keyboard.press('Enter');
  await until('what is wrong', async () => /ttl/.test(await dialog.getByRole('alert').innerText()));
  await dialog.getByLabel('Time').fill('2h');
  await page.keyboard.press('Enter');
  await until('another end', async () => /in 1 h 59 min/.test(await page.innerText('.facts >> nth=0')));
  dialog = await ask('Close');
  await dialog.getByRole('button', { name: 'Close tunnel' }).click();
  await until('it is closed', async () => /This tunnel is closed/.test(await page.innerText('.notice')));

  // Keys.
  await go(page, '#/keys');
  await page.getByRole('button', { name: 'Revoke carol' }).click();
  dialog = page.getByRole('dialog');
  await dialog.getByRole('button', { name: 'Revoke key' }).click();
  await until('it is gone', async () => !(await column(page, 'name')).includes('carol'));

  // All of it happened.
  await go(page, '#/events');
  await until('events of all', async () => {
    const kinds = await column(page, 'kind');
    return ['Disconnected', 'Drained', 'Suspended', 'Resumed', 'Extended', 'Deleted', 'Revoked'].every((kind) => kinds.includes(kind));
  });
  assert.ok(await page.getByRole('link', { name: 'Events' }).first().getAttribute('aria-current'));
});
