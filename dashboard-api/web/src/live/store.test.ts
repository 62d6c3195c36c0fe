import { expect, test } from 'vitest';
import { alertOf, snapshotOf, statusOf } from '../../test/samples';
import { BoardStore } from './store';

/** A store whose frames come when the test says so. */
function storeWithFrames() {
  const frames: (() => void)[] = [];
  const store = new BoardStore(
    (callback) => frames.push(callback),
    () => 50_000,
  );
  return {
    store,
    frame: () =>
      frames.splice(0).forEach((callback) => {
        callback();
      }),
    pending: () => frames.length,
  };
}

const row = (n: number) => ({ epoch: n, as_of_ms: n, changes: [{ key: {}, row: { n } }] });

test('many messages in one frame are shown together, once', () => {
  const { store, frame, pending } = storeWithFrames();
  let renders = 0;
  store.subscribe(() => (renders += 1));
  store.viewSnapshot(snapshotOf('v', [{ n: 0 }]));
  for (let n = 1; n <= 100; n += 1) store.viewChange('v', row(n));
  expect(store.get().views.v).toBeUndefined();
  expect(pending()).toBe(1);
  frame();
  expect(renders).toBe(1);
  expect(store.get().views.v?.epoch).toBe(100);
});

test('a message about one view leaves the others as they are', () => {
  const { store, frame } = storeWithFrames();
  store.viewSnapshot(snapshotOf('a', [{ n: 0 }]));
  store.viewSnapshot(snapshotOf('b', [{ n: 0 }]));
  frame();
  const before = store.get();
  store.viewChange('a', row(1));
  frame();
  expect(store.get().views.a).not.toBe(before.views.a);
  expect(store.get().views.b).toBe(before.views.b);
  expect(store.get().alerts).toBe(before.alerts);
});

test('paused: the values stand still, the connection does not, and resuming shows the newest', () => {
  const { store, frame } = storeWithFrames();
  store.viewSnapshot(snapshotOf('v', [{ n: 0 }]));
  store.setConnection({ kind: 'live' });
  frame();
  store.pause();
  store.viewChange('v', row(1));
  store.viewChange('v', row(2));
  store.alertEvent(alertOf('x'));
  store.setConnection({ kind: 'lost', sinceMs: 1, nextAttemptMs: null });
  frame();
  expect(store.get()).toMatchObject({ paused: true, waiting: 3, connection: { kind: 'lost' } });
  expect(store.get().views.v?.epoch).toBe(1);
  expect(store.get().alerts.firing).toHaveLength(0);
  store.resume();
  frame();
  expect(store.get()).toMatchObject({ paused: false, waiting: 0 });
  expect(store.get().views.v?.epoch).toBe(2);
  expect(store.get().alerts.firing).toHaveLength(1);
});

test('only alerts that begin while the page is open are arrivals', () => {
  const { store, frame } = storeWithFrames();
  store.alertSnapshot([alertOf('old')]);
  store.alertEvent(alertOf('new'));
  store.alertEvent(alertOf('new', { title: 'an update' }));
  store.alertEvent(alertOf('old', { state: 'resolved', resolved_at: '2025-10-14T09:00:00Z' }));
  // After a gap that could not be recovered, the snapshot tells what began meanwhile.
  store.alertSnapshot([alertOf('new'), alertOf('meanwhile')]);
  frame();
  expect(store.get().arrivals.map((alert) => alert.alert_id)).toEqual(['new', 'meanwhile']);
});

test('the engine counts as seen when it wrote, not when we read', () => {
  const { store, frame } = storeWithFrames();
  store.engineStatus(statusOf(), 20_000);
  frame();
  expect(store.get().engineSeenMs).toBe(30_000);
});
