// @vitest-environment jsdom
/** The page's widgets in each of their states. */
import { act, cleanup, fireEvent, render, screen, within } from '@testing-library/react';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { App } from '../src/app/App';
import { BoardStore } from '../src/live/store';
import { startTheme } from '../src/theme/theme';
import { alertOf, snapshotOf, statusOf } from './samples';

const sales = {
  revenue_net: '1250.00',
  units_sold: '40.00',
  invoices: 3,
  revenue_net_yesterday: '5000.00',
  units_sold_yesterday: '0',
};

let store: BoardStore;
let clockMs: number;
const live = { retryNow: vi.fn(), signIn: vi.fn(), stop: vi.fn() };

beforeEach(() => {
  localStorage.clear();
  startTheme();
  // Every update is shown at once.
  clockMs = Date.now();
  store = new BoardStore(
    (callback) => callback(),
    () => clockMs,
  );
  render(<App store={store} live={live} />);
});
afterEach(() => {
  cleanup();
});

const tile = (id: string) => within(screen.getByTestId(`tile-${id}`));
const goLive = () => {
  store.setConnection({ kind: 'live' });
  store.engineStatus(statusOf(), 0);
  store.viewSnapshot(snapshotOf('kpi_sales_today', [sales]));
};

test('ten tiles, each loading at first', () => {
  expect(screen.getAllByTestId(/^tile-/)).toHaveLength(10);
  expect(tile('revenueToday').getByText('Loading…')).toBeTruthy();
});

test('a tile shows value, comparison and data time, and follows a change', () => {
  act(goLive);
  expect(tile('revenueToday').getByTestId('value').textContent).toBe('€1,250');
  expect(tile('revenueToday').getByText('25% of yesterday’s €5,000')).toBeTruthy();
  // Nothing was sold yesterday: no ratio, but still the number.
  expect(tile('unitsToday').getByText('yesterday 0')).toBeTruthy();
  clockMs += 2_000;
  act(() =>
    store.viewChange('kpi_sales_today', {
      epoch: 2,
      as_of_ms: 2,
      changes: [{ key: {}, row: { ...sales, revenue_net: '1300.00' } }],
    }),
  );
  expect(tile('revenueToday').getByTestId('value').textContent).toBe('€1,300');
  expect(tile('revenueToday').getByRole('img', { name: 'rising' })).toBeTruthy();
});

test('NULL, no row, an unknown view and one without inputs are told apart', () => {
  act(() => {
    store.viewSnapshot(snapshotOf('kpi_sales_today', [{ ...sales, revenue_net: null }]));
    store.viewSnapshot(snapshotOf('kpi_stock', []));
    store.viewSnapshot(snapshotOf('kpi_production', [], { empty_inputs: ['production_order'] }));
    store.viewAbsent('kpi_receivables', 'unknown');
  });
  expect(tile('revenueToday').getByTestId('value').textContent).toBe('–');
  expect(tile('stock').getByText('No row yet')).toBeTruthy();
  expect(tile('lateProduction').getByText(/Not recorded in this ERP: production_order/)).toBeTruthy();
  expect(tile('overdue').getByText(/not offered by the server/)).toBeTruthy();
});

test('old data is marked on every tile, in words', () => {
  act(() => {
    goLive();
    store.engineStatus(statusOf(), 60_000);
  });
  expect(screen.getAllByText('stale').length).toBeGreaterThanOrEqual(10);
  expect(screen.getByTestId('connection').dataset.state).toBe('silent');
});

test('offline: says so, keeps the last values, and can try at once', () => {
  act(goLive);
  act(() =>
    store.setConnection({ kind: 'lost', sinceMs: Date.now() - 60_000, nextAttemptMs: Date.now() + 3_000 }),
  );
  expect(screen.getByTestId('connection').textContent).toMatch(/^Offline since /);
  expect(screen.getByTestId('banner').textContent).toMatch(/last ones received/);
  expect(tile('revenueToday').getByTestId('value').textContent).toBe('€1,250');
  fireEvent.click(screen.getByRole('button', { name: 'Try now' }));
  expect(live.retryNow).toHaveBeenCalledOnce();
});

test('pause holds the values and says how many changes wait', () => {
  act(goLive);
  fireEvent.click(screen.getByRole('button', { name: 'Pause' }));
  act(() =>
    store.viewChange('kpi_sales_today', {
      epoch: 2,
      as_of_ms: 2,
      changes: [{ key: {}, row: { ...sales, revenue_net: '9' } }],
    }),
  );
  expect(tile('revenueToday').getByTestId('value').textContent).toBe('€1,250');
  expect(screen.getByTestId('banner').textContent).toMatch(/1 change waiting/);
  fireEvent.click(screen.getByRole('button', { name: 'Resume' }));
  expect(tile('revenueToday').getByTestId('value').textContent).toBe('€9');
});

test('alerts: order, counts, facts, resolution, the quiet state and the tab title', () => {
  act(() => {
    goLive();
    store.alertSnapshot([]);
  });
  expect(screen.getByText('All quiet')).toBeTruthy();
  act(() => {
    store.alertEvent(alertOf('1', { priority: 1, title: 'small' }));
    store.alertEvent(
      alertOf('2', {
        priority: 9,
        title: 'large',
        severity: 'critical',
        impact: '1840.00',
        row: { item: 'X' },
      }),
    );
  });
  const firing = screen.getAllByTestId('alert-firing');
  expect(firing.map((item) => item.textContent)).toEqual([
    expect.stringContaining('large'),
    expect.stringContaining('small'),
  ]);
  expect(firing[0]?.textContent).toContain('€1,840');
  expect(firing[0]?.textContent).toContain('for 2 hrs 15 mins');
  expect(document.title).toBe('(2) Andon');
  act(() =>
    store.alertEvent(
      alertOf('2', { state: 'resolved', title: 'large', resolved_at: '2025-10-14T09:00:00Z' }),
    ),
  );
  expect(screen.getAllByTestId('alert-firing')).toHaveLength(1);
  expect(screen.getByTestId('alert-resolved').textContent).toContain('resolved after 1 hr');
  expect(document.title).toBe('(1) Andon');
});

test('new alerts are announced together and politely', () => {
  vi.useFakeTimers();
  try {
    act(() => {
      goLive();
      store.alertSnapshot([alertOf('old')]);
    });
    act(() => store.alertEvent(alertOf('1', { title: 'first', priority: 1 })));
    act(() => store.alertEvent(alertOf('2', { title: 'second', priority: 5 })));
    expect(screen.getByTestId('announcer').textContent).toBe('');
    act(() => void vi.advanceTimersByTime(3_000));
    expect(screen.getByRole('status').textContent).toBe('2 new alerts. First: second');
  } finally {
    vi.useRealTimers();
  }
});

test('German: texts, numbers and the page’s language', () => {
  act(goLive);
  fireEvent.change(screen.getByLabelText('Language'), { target: { value: 'de' } });
  expect(screen.getByText('Umsatz heute')).toBeTruthy();
  expect(tile('revenueToday').getByTestId('value').textContent?.replace(/\s/g, ' ')).toBe('1.250 €');
  expect(document.documentElement.lang).toBe('de');
});

test('the appearance can be chosen', () => {
  fireEvent.change(screen.getByLabelText('Appearance'), { target: { value: 'contrast' } });
  expect(document.documentElement.dataset.theme).toBe('contrast');
});

test('a server that wants a token gets one from the panel', () => {
  act(() => store.setSignIn('rejected'));
  expect(screen.getByRole('alert').textContent).toMatch(/did not accept/);
  fireEvent.change(screen.getByLabelText('Access token'), { target: { value: 'a.b.c' } });
  fireEvent.click(screen.getByRole('button', { name: 'Sign in' }));
  expect(live.signIn).toHaveBeenCalledWith('a.b.c');
});
