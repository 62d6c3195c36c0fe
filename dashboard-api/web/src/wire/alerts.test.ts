import * as v from 'valibot';
import { expect, test } from 'vitest';
import { alertOf as alert } from '../../test/samples';
import { applyAlert, countBySeverity, fromAlerts, RESOLVED_MAX } from './alerts';
import { type Alert, AlertSchema } from './schema';

const ids = (alerts: readonly Alert[]) => alerts.map((each) => each.alert_id).join(' ');

test('firing alerts stand by priority, resolved ones by the time they ended', () => {
  let book = fromAlerts([
    alert('low', { priority: 1 }),
    alert('top', { priority: 9 }),
    alert('mid', { priority: 5 }),
  ]);
  expect(ids(book.firing)).toBe('top mid low');
  book = applyAlert(book, alert('top', { state: 'resolved', resolved_at: '2025-10-14T09:00:00Z' }));
  book = applyAlert(book, alert('low', { state: 'resolved', resolved_at: '2025-10-14T10:00:00Z' }));
  expect(ids(book.firing)).toBe('mid');
  expect(ids(book.resolved)).toBe('low top');
});

test('the last word on an alert counts: an update replaces it and does not double it', () => {
  const book = applyAlert(
    fromAlerts([alert('a', { priority: 1 })]),
    alert('a', { priority: 7, title: 'worse' }),
  );
  expect(book.firing).toHaveLength(1);
  expect(book.firing[0]).toMatchObject({ title: 'worse', priority: 7 });
});

test('resolved alerts are bounded, the oldest leave', () => {
  let book = fromAlerts([]);
  for (let n = 0; n < RESOLVED_MAX + 10; n += 1) {
    const end = new Date(Date.UTC(2025, 9, 14, 0, n)).toISOString();
    book = applyAlert(book, alert(`a${n}`, { state: 'resolved', resolved_at: end }));
  }
  expect(book.resolved).toHaveLength(RESOLVED_MAX);
  expect(book.resolved[0]?.alert_id).toBe(`a${RESOLVED_MAX + 9}`);
  expect(book.resolved.at(-1)?.alert_id).toBe('a10');
});

test('a severity that this page does not know yet still shows, as a warning', () => {
  const odd = v.parse(AlertSchema, { ...alert('a'), severity: 'apocalyptic' });
  expect(countBySeverity([odd]).warning).toBe(1);
});
