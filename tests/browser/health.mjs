// A client that stands still turns late, then dead, and comes back.

import assert from 'node:assert/strict';
import { column, enter, row, run, until } from './shared.mjs';

const { CLIENT } = process.env;
const id = Number(process.env.CLIENT_ID);

await run(async (browser) => {
  const page = await enter(browser);
  const health = () => row(page, CLIENT).locator('.mark').innerText();
  await until('it is alive', async () => (await health()) === 'Alive');
  process.kill(id, 'SIGSTOP');
  try {
    await until('it is late', async () => (await health()) === 'Late');
    assert.equal(await row(page, CLIENT).locator('.mark').getAttribute('data-look'), 'late');
    await until('it is dead', async () => (await health()) === 'Dead');
    assert.equal((await column(page, 'tunnel'))[0], CLIENT, 'the dead come first');
    await until('it is counted', async () => (await page.innerText('.tile[data-look=dead] .value')) === '1');
    assert.match(await page.title(), /^\(1 dead\)/);
    await until('its strip says so', async () => /[1-9] missed/.test(await row(page, CLIENT).locator('.strip').getAttribute('aria-label')));
  } finally {
    process.kill(id, 'SIGCONT');
  }
  await until('it is back', async () => (await health()) === 'Alive');
  await until('nobody is dead', async () => (await page.innerText('.tile[data-look=dead] .value')) === '0');
  assert.ok(Number(await row(page, CLIENT).locator('[data-column=reconnects]').innerText()) >= 1);
});
