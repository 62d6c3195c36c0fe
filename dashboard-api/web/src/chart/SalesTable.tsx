/** The chart's twin: every value of every day, the newest on top, exact to the cent. */
import { useTexts } from '../messages';
import styles from './SalesTable.module.css';
import { type DaySeries, exactSum } from './series';

export function SalesTable({ series }: { series: DaySeries }) {
  const { m, f } = useTexts();
  const days = series.days.map((day, index) => ({ day, row: series.rows[index] ?? null })).reverse();
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard.
    <section className={styles.scroll} tabIndex={0} aria-label={m.chartTitle}>
      <table className={styles.table}>
        <thead>
          <tr>
            <th scope="col">{m.column.day}</th>
            <th scope="col">{m.column.invoices}</th>
            <th scope="col">{m.units}</th>
            <th scope="col">{m.revenue}</th>
            <th scope="col">{m.column.credited}</th>
          </tr>
        </thead>
        <tbody>
          {days.map(({ day, row }) => (
            <tr key={day}>
              <th scope="row">{f.day(day)}</th>
              {row ? (
                <>
                  <td>{f.number(row.invoices, 'count')}</td>
                  <td>{f.number(row.units_sold, 'quantity')}</td>
                  <td>{f.number(row.revenue_net, 'money_exact')}</td>
                  <td>{f.number(row.credited_net, 'money_exact')}</td>
                </>
              ) : (
                <td colSpan={4} className={styles.gap}>
                  {m.noSales}
                </td>
              )}
            </tr>
          ))}
        </tbody>
        <tfoot>
          <tr>
            <th scope="row">{m.total}</th>
            <td>{f.number(exactSum(series, 'invoices'), 'count')}</td>
            <td>{f.number(exactSum(series, 'units_sold'), 'quantity')}</td>
            <td>{f.number(exactSum(series, 'revenue_net'), 'money_exact')}</td>
            <td>{f.number(exactSum(series, 'credited_net'), 'money_exact')}</td>
          </tr>
        </tfoot>
      </table>
    </section>
  );
}
