import { expect, test } from 'vitest';
import { fromSnapshot } from '../wire/view';
import { dailySeries, drawn, exactSum } from './series';

const sales = (...days: [string, string | null][]) =>
  fromSnapshot(
    {
      view: 'sales_by_day',
      key: ['record_date'],
      columns: [],
      rows: days.map(([record_date, revenue_net]) => ({ record_date, revenue_net })),
      epoch: 1,
      as_of_ms: 1,
      empty_inputs: [],
    },
    0,
  );

test('every calendar day up to the newest one; a day without a row is a gap', () => {
  const series = dailySeries(sales(['2025-10-25', '1.00'], ['2025-10-27', '3.00'], ['2025-10-24', '0.50']));
  expect(series.days).toEqual(['2025-10-24', '2025-10-25', '2025-10-26', '2025-10-27']);
  expect(drawn(series, 'revenue_net')).toEqual([0.5, 1, null, 3]);
});

test('only the last days, also over the end of summer time and of a month', () => {
  const series = dailySeries(sales(['2025-08-01', '1'], ['2025-11-02', '2']), 10);
  expect(series.days[0]).toBe('2025-10-24');
  expect(series.days).toHaveLength(10);
});

test('rows without a usable date are left out, and no rows give no days', () => {
  expect(dailySeries(undefined).days).toEqual([]);
  expect(dailySeries(sales(['', '1'])).days).toEqual([]);
});

test('sums are exact', () => {
  const series = dailySeries(
    sales(['2025-10-01', '0.10'], ['2025-10-02', '0.20'], ['2025-10-03', '-1000000000000000.05']),
  );
  expect(exactSum(series, 'revenue_net')).toBe('-999999999999999.75');
  expect(exactSum(series, 'units_sold')).toBe('0');
});
