import { expect, test } from 'vitest';
import { alertOf } from '../../test/samples';
import { formatFor } from '../format/format';
import { impactOf } from './impact';

const f = formatFor('en');
const short = (impact: string | null, row: Record<string, string> | null) =>
  impactOf(alertOf('a', { impact, row }), f)?.short;

test('a money column is money, also if another column holds the same number', () => {
  expect(short('1840.00', { on_hand: '3', value_at_risk: '1840.000' })).toBe('€1,840');
  expect(short('12.00', { quantity: '12', net_amount: '12.00' })).toBe('€12');
});

test('a count is not dressed up as money', () => {
  expect(short('70', { remaining: '70.000', target: '80' })).toBe('70 remaining');
});

test('without the row the contract says money; without an impact there is nothing', () => {
  expect(short('70', null)).toBe('€70');
  expect(short(null, { remaining: '70' })).toBeUndefined();
});
