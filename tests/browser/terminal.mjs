// The terminal page, before a service that speaks telnet; the service itself checks what it gets.

import assert from 'node:assert/strict';

import { ALL_BUT_COLOURS, judge, open, run, until } from './shared.mjs';

const { PORT, PICTURES } = process.env;

await run(async (browser) => {
  const page = await open(browser);
  await page.goto(`http://127.0.0.1:${PORT}/`);
  const screen = page.locator('#screen');
  const shows = (text) => until(text, async () => (await screen.textContent()).includes(text));
  await shows('Who are ');
  // What comes is text.
  await shows('you? <b>');
  assert.equal(await page.locator('#screen b').count(), 0);
  await page.keyboard.type('anx');
  await page.keyboard.press('Backspace');
  await page.keyboard.type('n');
  await shows('you? <b>ann');
  await page.keyboard.press('Enter');
  await shows('Password: ');
  await page.keyboard.type('s');
  await page.keyboard.press('Enter');
  await shows('Welcome, änn');
  assert.ok(!(await screen.textContent()).includes('Password: s'));
  await judge(page, 'the terminal', ALL_BUT_COLOURS);
  if (PICTURES) await page.screenshot({ path: `${PICTURES}/terminal.png` });
});
