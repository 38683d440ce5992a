// The door, every view, and what strangers sent shown as text.

import assert from 'node:assert/strict';
import net from 'node:net';
import { column, DASHBOARD, enter, go, live, open, PASSWORD, row, run, until } from './shared.mjs';

const { HOSTILE, FAILING } = process.env;

await run(async (browser) => {
  await door(browser);
  await link(browser);
  const page = await enter(browser);
  await fleet(page);
  await client(page);
  await tunnels(page);
  await events(page);
  await keys(page);
  await pause(page);
  await stillness(page);
  await memory(page);
  await lost(page.context());
  await leave(page);
});

async function door(browser) {
  const page = await open(browser);
  await page.goto(DASHBOARD);
  const text = await page.innerText('body');
  assert.ok(!text.includes('plain-') && !text.includes('alice'), 'the door says nothing of what is behind it');
  await page.getByLabel('Password').fill('wrong');
  const [answer] = await Promise.all([page.waitForResponse('**/login'), page.getByRole('button', { name: 'Log in' }).click()]);
  assert.equal(answer.status(), 401);
  assert.match(await page.getByRole('alert').innerText(), /not the password/);
  await page.getByLabel('Password').fill(PASSWORD);
  await page.keyboard.press('Enter');
  await live(page);
  assert.equal((await page.context().cookies())[0].httpOnly, true);
  await page.context().close();
}

/** A link is good once. */
async function link(browser) {
  const page = await open(browser);
  await page.goto(process.env.LINK);
  await live(page);
  assert.ok(!page.url().includes('token'), 'nobody reads it from the window');
  const other = await open(browser);
  assert.equal((await other.goto(process.env.LINK)).status(), 401);
  assert.match(await other.getByRole('alert').innerText(), /used already/);
  await page.context().close();
  await other.context().close();
}

async function fleet(page) {
  const alive = Number(process.env.CLIENTS);
  await until('all are alive', async () => (await page.innerText('.tile[data-look=alive] .value')) === String(alive));
  await until('a page of them', async () => (await column(page, 'tunnel')).length === Math.min(50, alive));
  assert.equal(await page.innerText('.count'), `1–50 of ${alive}`);
  // The order is the relay's.
  await page.getByRole('button', { name: 'Client', exact: true }).click();
  const rising = await until('an order by name', async () => {
    const names = await column(page, 'tunnel');
    return names.length === 50 && names.join() === [...names].sort().join() && names;
  });
  assert.equal(await page.getAttribute('th[data-column=tunnel]', 'aria-sort'), 'ascending');
  await page.getByRole('button', { name: 'Client', exact: true }).click();
  await until('the other way round', async () => (await column(page, 'tunnel'))[0] > rising.at(-1));
  assert.equal(await page.getAttribute('th[data-column=tunnel]', 'aria-sort'), 'descending');
  // Pages.
  await page.getByRole('button', { name: 'Last', exact: true }).click();
  await until('the last page', async () => (await column(page, 'tunnel')).at(-1) === rising[0]);
  assert.match(await page.evaluate(() => location.hash), /page=2/);
  assert.ok(await page.getByRole('button', { name: 'Next', exact: true }).isDisabled());
  // A link leads to the same.
  await page.reload();
  await live(page);
  await until('the last page again', async () => (await column(page, 'tunnel')).at(-1) === rising[0]);
  await go(page, '#/fleet?page=99');
  await until('that there is no such page', async () => (await page.innerText('.pager .where')) === 'Behind page 2');
  assert.equal(await page.innerText('.count'), `${alive} clients`);
  // An address that was typed wrong leads to the list as it is without it.
  await go(page, '#/fleet?sort=nonsense&order=up&health=purple,dead,alive&page=-1&size=7');
  await until('the first page', async () => (await page.innerText('.count')) === `1–50 of ${alive}`);
  await live(page);
  assert.ok(await page.locator('p.error').isHidden());
  await page.locator('.chip[data-value=dead]').click();
  await page.locator('.chip[data-value=alive]').click();
  // Search goes back to the first page.
  await page.getByLabel('Search clients').fill('PLAIN-07');
  await until('what was searched', async () => (await column(page, 'tunnel')).join() === 'plain-07');
  assert.equal(await page.innerText('.count'), '1 client');
  await until('said to who does not see it', async () => (await page.textContent('#said')) === '1 client found');
  await page.getByLabel('Search clients').fill('no such client');
  await until('nothing', async () => (await page.innerText('.list .empty')) === 'No client fits.');
  await page.getByLabel('Search clients').fill('');
  await page.locator('.chip[data-value=dead]').click();
  await until('none is dead', async () => (await column(page, 'tunnel')).length === 0);
  assert.equal(await page.getAttribute('.tile[data-look=dead]', 'aria-pressed'), 'true');
  await page.locator('.tile[data-look=dead]').click();
  await until('all again', async () => (await column(page, 'tunnel')).length === 50);
  // What a stranger sent is text.
  await page.getByLabel('Search clients').fill('hostile');
  await until('the hostile one', async () => (await column(page, 'agent')).join() === HOSTILE);
  assert.equal(await page.locator('main img, main script, main b.planted').count(), 0);
  assert.equal(await page.evaluate(() => globalThis.planted), undefined);
  // Everybody has a strip, with words for who does not see it.
  const strip = page.locator('canvas.strip').first();
  await until('a pong in the strip', async () => /answered/.test(await strip.getAttribute('aria-label')));
  assert.equal(await page.locator('.plot canvas').count(), 3);
  await until('points in the charts', async () => /\d/.test(await page.innerText('.chart .figure >> nth=0')));
  assert.match(await page.innerText('.stats'), /sessions: \d+ base, \d+ two, \d+ wsmux/);
  await until('the newest events', async () => (await page.locator('.latest li').count()) > 3);
}

async function client(page) {
  // Whoever points at its hour before the first answer does no harm.
  let answer;
  const asked = new Promise((resolve) => { answer = resolve; });
  await page.route('**/api/clients/*', (route) => asked.then(() => route.continue()));
  await row(page, 'hostile').locator('a.open').click();
  await page.locator('.track .strip').hover();
  await page.mouse.move(0, 0);
  answer();
  await page.unroute('**/api/clients/*', { behavior: 'wait' });
  await until('its heading', async () => (await page.innerText('h1')) === 'hostile');
  const text = await until('its facts', async () => {
    const found = await page.innerText('.facts');
    return found.includes(HOSTILE) && found;
  });
  assert.match(text, /base/);
  await until('round trips', async () => (await page.locator('.spread tbody tr').count()) > 0);
  await until('its events', async () => (await column(page, 'kind')).includes('Connected'));
  assert.match(await page.title(), /^hostile – Adit/);
  assert.equal(await page.locator('main img').count(), 0);
  await page.goBack();
  await until('the list again', async () => (await column(page, 'tunnel')).join() === 'hostile');
  await go(page, '#/fleet/00000000-0000-4000-8000-000000000000');
  await until('nobody there', async () => /no client with this session/.test(await page.innerText('.notice')));
  // The stream is there for whoever comes by such a link, too, and so is a way on.
  await page.reload();
  await live(page);
  await until('nobody there still', async () => (await page.innerText('.heading .mark')) === 'Gone');
  assert.equal(await page.locator('.panel:visible').count(), 0, 'no panel of nothing');
  await page.getByRole('link', { name: 'All clients' }).click();
  await until('the list', async () => (await column(page, 'tunnel')).length > 1);
}

async function tunnels(page) {
  await go(page, '#/tunnels?search=plain-01');
  await until('one tunnel', async () => (await column(page, 'name')).join() === 'plain-01');
  assert.match(await page.innerText('td[data-column=name]'), /http:\/\/plain-01\.relay\.test/);
  await page.getByLabel('Search tunnels').fill('');
  await page.getByRole('button', { name: 'Failures' }).click();
  await until('the worst first', async () => (await column(page, 'name'))[0] === FAILING);
  await row(page, FAILING).locator('a.open').click();
  await until('its failures by cause', async () => (await page.innerText('table[data-view=causes]')).includes('1'));
  await until('its client', async () => (await column(page, 'tunnel')).join() === FAILING);
  await page.getByRole('link', { name: 'Tunnels', exact: true }).last().click();
  // Its own viewer is still there: the link with its name opens.
  await page.getByLabel('Search tunnels').fill('web');
  await until('the busy one', async () => (await column(page, 'name')).join() === 'web');
  await row(page, 'web').locator('a.open').click();
  await until('its requests', async () => /Requests\s+[1-9]/.test(await page.innerText('.facts >> nth=1')));
}

async function events(page) {
  await go(page, '#/events');
  await until('events', async () => (await column(page, 'kind')).includes('Connected'));
  await page.locator('.chip[data-value=refused]').click();
  await until('refusals alone', async () => {
    const kinds = await column(page, 'kind');
    return kinds.length > 0 && kinds.every((kind) => kind === 'Refused');
  });
  await page.locator('.chip[data-value=refused]').click();
  await page.getByLabel('Search events').fill('hostile');
  await until('events of one', async () => {
    const names = await column(page, 'tunnel');
    return names.length > 0 && names.every((name) => name === 'hostile');
  });
}

async function keys(page) {
  await go(page, '#/keys');
  await until('the keys', async () => (await column(page, 'name')).includes('alice'));
  assert.match(await page.locator('tbody tr', { hasText: 'alice' }).innerText(), /Take it out of the configuration/);
}

/** While it is paused nothing moves, and then all of it at once. */
async function pause(page) {
  await go(page, '#/fleet');
  await until('figures', async () => (await page.innerText('.tile[data-look=alive] .value')) !== '–');
  await page.getByRole('button', { name: 'Pause' }).click();
  assert.equal(await page.getAttribute('#live', 'data-state'), 'paused');
  const before = await page.textContent('#foot');
  const passed = page.waitForResponse('**/api/clients?*');
  await page.getByLabel('Search clients').fill('plain');
  await passed;
  await until('what is asked for comes all the same', async () => (await column(page, 'tunnel')).every((name) => name.startsWith('plain')));
  assert.equal(await page.textContent('#foot'), before);
  await page.getByRole('button', { name: 'Go on' }).click();
  await until('it goes on', async () => (await page.textContent('#foot')) !== before);
}

/** No view moves in a pause, and each has caught up after it. */
async function stillness(page) {
  await go(page, '#/tunnels?search=web');
  await until('the tunnel', async () => (await column(page, 'name')).join() === 'web');
  const hash = await page.locator('tbody a.open').getAttribute('href');
  const id = hash.split('/').at(-1);
  let suspended = false;
  for (const [to, part] of [['#/fleet', '.latest'], ['#/tunnels?search=web', 'tbody'], ['#/events', 'tbody'], [hash, '.view']]) {
    await go(page, to);
    await until(`rows of ${to}`, async () => /\w/.test(await page.innerText(part)) && (await page.locator(`${part} .mark`).count()) > 0);
    if (to === hash) await until('its events', async () => (await column(page, 'kind')).length > 0);
    await page.getByRole('button', { name: 'Pause' }).click();
    const marks = () => page.locator(`${part} .mark`).allInnerTexts().then((words) => words.join());
    const before = await marks();
    suspended = !suspended;
    await happens(page, id, suspended);
    assert.equal(await marks(), before, `${to} stands still`);
    await page.getByRole('button', { name: 'Go on' }).click();
    await until(`${to} has caught up`, async () => (await marks()) !== before);
  }
  assert.equal(suspended, false);
}

/** Suspends a tunnel, or resumes it, and comes back when another stream than the page's has told of it. */
async function happens(page, id, suspended) {
  await page.evaluate(async ([tunnel, value]) => {
    const newest = async () => (await (await fetch('/api/events?size=1')).json()).newest;
    const before = await newest();
    const source = new EventSource('/api/live?view=events&size=1');
    const told = new Promise((done, failed) => {
      source.addEventListener('page', ({ data }) => JSON.parse(data).newest > before && done());
      source.addEventListener('error', failed);
    });
    const headers = { 'content-type': 'application/json' };
    await fetch(`/api/tunnels/${tunnel}/suspend`, { method: 'POST', headers, body: JSON.stringify({ suspended: value }) });
    await told;
    source.close();
  }, [id, suspended]);
}

/** What is not in the page any more is not kept. */
async function memory(page) {
  for (const to of ['#/fleet', '#/keys', '#/fleet?page=2', '#/keys', '#/fleet', '#/keys']) {
    await go(page, to);
    await until(to, async () => (await page.locator('tbody tr').count()) > 1);
  }
  const inspector = await page.context().newCDPSession(page);
  const { result } = await inspector.send('Runtime.evaluate', { expression: 'HTMLCanvasElement.prototype' });
  await inspector.send('HeapProfiler.enable');
  await until('nothing is left of the strips', async () => {
    await inspector.send('HeapProfiler.collectGarbage');
    const { objects } = await inspector.send('Runtime.queryObjects', { prototypeObjectId: result.objectId });
    const found = await inspector.send('Runtime.callFunctionOn', { objectId: objects.objectId, functionDeclaration: 'function () { return this.length; }' });
    await inspector.send('Runtime.releaseObject', { objectId: objects.objectId });
    return found.result.value === 0;
  });
  await inspector.detach();
}

/** A stream that is gone is told, and comes back. */
async function lost(context) {
  const { hostname, port } = new URL(DASHBOARD);
  const open = new Set();
  const line = net.createServer((near) => {
    const far = net.connect(port, hostname);
    for (const [from, to] of [[near, far], [far, near]]) {
      open.add(from);
      from.pipe(to);
      from.on('error', () => to.destroy());
      from.on('close', () => to.destroy());
    }
  });
  const listen = (at) => new Promise((done) => { line.listen(at, hostname, done); });
  await listen(0);
  const { port: at } = line.address();
  const page = await context.newPage();
  await page.goto(`http://${hostname}:${at}/`);
  await live(page);
  await until('figures', async () => (await page.innerText('.tile[data-look=alive] .value')) !== '–');
  const ended = new Promise((done) => { line.close(done); });
  open.forEach((socket) => socket.destroy());
  await ended;
  await until('it is told', async () => /connection to the relay was lost/.test(await page.innerText('#notices')));
  assert.equal(await page.getAttribute('#live', 'data-state'), 'lost');
  assert.notEqual(await page.innerText('.tile[data-look=alive] .value'), '–', 'what was there stays');
  await listen(at);
  await live(page);
  assert.equal(await page.innerText('#notices'), '');
  await page.close();
  line.close();
  open.forEach((socket) => socket.destroy());
}

async function leave(page) {
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.getByLabel('Password').waitFor();
  assert.deepEqual((await page.context().cookies()).filter(({ value }) => value), []);
}
