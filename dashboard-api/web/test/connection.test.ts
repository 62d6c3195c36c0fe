/** The real Centrifuge client of the page against a small server: snapshots, changes, cuts, recovery, tokens. */
import { afterEach, expect, test, vi } from 'vitest';
import WebSocket from 'ws';
import { Channel, startDevServer } from '../dev/server.mjs';
import { type Live, startLive } from '../src/live/connection';
import { type Board, BoardStore } from '../src/live/store';
import { alertOf, snapshotOf, statusOf } from './samples';

type Server = Awaited<ReturnType<typeof startDevServer>>;
const WAIT = { timeout: 8_000, interval: 20 };
const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A view `v` with one row, the alerts and the status. */
async function server(port = 0, n = 0): Promise<{ server: Server; set: (n: number) => void }> {
  let row = { n };
  const channels = new Map([
    ['view:v', new Channel(() => snapshotOf('v', [row]))],
    ['alerts', new Channel(() => ({ alerts: [alertOf('a')] }))],
    ['status', new Channel(() => statusOf())],
  ]);
  const started = await startDevServer({ port, channels });
  cleanups.push(() => started.close());
  const set = (next: number) => {
    row = { n: next };
    started.publish('view:v', { epoch: next, as_of_ms: next, changes: [{ key: {}, row }] });
  };
  return { server: started, set };
}

function page(port: number): { store: BoardStore; live: Live; board: () => Board; n: () => unknown } {
  // Shown at once: the test wants to see short states too.
  const store = new BoardStore((callback) => callback());
  const live = startLive({
    store,
    base: `http://127.0.0.1:${port}`,
    views: ['v'],
    websocket: WebSocket,
    retryMs: 150,
  });
  cleanups.push(() => live.stop());
  const board = () => store.get();
  return { store, live, board, n: () => board().views.v?.rows.values().next().value?.n };
}

test('snapshot, then changes, alerts and status', async () => {
  const { server: peer, set } = await server();
  const { board, n } = page(peer.port);
  await vi.waitFor(() => expect(n()).toBe(0), WAIT);
  expect(board().connection.kind).toBe('live');
  await vi.waitFor(() => expect(board().alerts.firing).toHaveLength(1), WAIT);
  await vi.waitFor(() => expect(board().status?.phase).toBe('live'), WAIT);
  set(5);
  peer.publish('alerts', { type: 'io.andon.alert.firing', data: alertOf('b') });
  await vi.waitFor(() => expect(n()).toBe(5), WAIT);
  await vi.waitFor(() => expect(board().arrivals.map((alert) => alert.alert_id)).toEqual(['b']), WAIT);
});

test('after a cut, what was missed is recovered change by change', async () => {
  const { server: peer, set } = await server();
  const { board, n } = page(peer.port);
  await vi.waitFor(() => expect(n()).toBe(0), WAIT);
  peer.cut();
  for (const missed of [1, 2, 3]) set(missed);
  await vi.waitFor(() => expect(board().connection.kind).toBe('lost'), WAIT);
  expect(n()).toBe(0);
  await vi.waitFor(() => expect(n()).toBe(3), WAIT);
  expect(board().connection.kind).toBe('live');
  // Recovered publications count one by one; a snapshot would have been a single change.
  expect(board().views.v?.changes).toBe(3);
});

test('a server that was started anew is found again, with a new snapshot', async () => {
  const { server: first } = await server();
  const { board, n } = page(first.port);
  await vi.waitFor(() => expect(n()).toBe(0), WAIT);
  await first.close();
  await vi.waitFor(() => expect(board().connection.kind).toBe('lost'), WAIT);
  expect(n()).toBe(0);
  await server(first.port, 42);
  await vi.waitFor(() => expect(n()).toBe(42), WAIT);
  expect(board().connection.kind).toBe('live');
});

test('a page opened before its server keeps trying', async () => {
  const { server: first } = await server();
  await first.close();
  const { board, n } = page(first.port);
  await vi.waitFor(() => expect(board().connection.kind).toBe('lost'), WAIT);
  await server(first.port, 7);
  await vi.waitFor(() => expect(n()).toBe(7), WAIT);
});

test('a view that the server does not know says so, without hurting the others', async () => {
  const { server: peer } = await server();
  peer.state.channels.delete('view:v');
  const { board } = page(peer.port);
  await vi.waitFor(() => expect(board().absent.v).toBe('unknown'), WAIT);
  await vi.waitFor(() => expect(board().alerts.firing).toHaveLength(1), WAIT);
});

test('a message that is not understood is reported and does not stop the channel', async () => {
  const complaint = vi.spyOn(console, 'error').mockImplementation(() => undefined);
  const { server: peer, set } = await server();
  const { board, n } = page(peer.port);
  await vi.waitFor(() => expect(n()).toBe(0), WAIT);
  peer.publish('view:v', { changes: 'all of them' });
  await vi.waitFor(() => expect(board().absent.v).toBe('unreadable'), WAIT);
  expect(complaint).toHaveBeenCalled();
  set(9);
  await vi.waitFor(() => expect(n()).toBe(9), WAIT);
});

test('a server that wants a token gets the sign-in panel, then the token', async () => {
  const { server: peer } = await server();
  peer.state.session = null;
  const { board, live, n } = page(peer.port);
  await vi.waitFor(() => expect(board().signIn).toBe('needed'), WAIT);
  expect(board().connection.kind).toBe('refused');
  peer.state.session = { token: 'a.b.c', user: 'ann', mode: 'token' };
  live.signIn('a.b.c');
  await vi.waitFor(() => expect(n()).toBe(0), WAIT);
  expect(board().signIn).toBe('not_needed');
  expect(peer.state.connects.at(-1)).toMatchObject({ token: 'a.b.c' });
});

test('a refused token is forgotten; a server that serves anybody still does', async () => {
  const kept = new Map<string, string>([['andon.token', 'old']]);
  vi.stubGlobal('sessionStorage', {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => kept.set(key, value),
    removeItem: (key: string) => kept.delete(key),
  });
  cleanups.push(() => void vi.unstubAllGlobals());
  const { server: peer } = await server();
  peer.state.refuses = 'Bearer old';
  const { board, n } = page(peer.port);
  await vi.waitFor(() => expect(n()).toBe(0), WAIT);
  expect(board().signIn).toBe('not_needed');
  expect(kept.size).toBe(0);
});
