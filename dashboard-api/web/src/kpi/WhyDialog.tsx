/** "Why this number?": the view behind a tile with its words, columns, SQL and upkeep, from the catalog. */
import { useEffect, useState } from 'react';
import { useBoard } from '../live/context';
import { authorization } from '../live/session';
import { useTexts } from '../messages';
import { Dialog } from '../parts/Dialog';
import type { ViewInfo } from '../wire/schema';
import { firstRow } from '../wire/view';
import { fetchCatalog, sqlType } from './catalog';
import type { TileSpec } from './tiles';
import styles from './WhyDialog.module.css';

type Loading =
  | { readonly kind: 'loading' }
  | { readonly kind: 'failed' }
  | { readonly kind: 'ready'; readonly info: ViewInfo | null };

function useViewInfo(name: string): Loading {
  const token = useBoard((board) => board.session?.token ?? null);
  const [state, setState] = useState<Loading>({ kind: 'loading' });
  useEffect(() => {
    const abort = new AbortController();
    fetchCatalog(location.origin, authorization(token), abort.signal)
      .then((views) => setState({ kind: 'ready', info: views.find((view) => view.name === name) ?? null }))
      .catch(() => {
        if (!abort.signal.aborted) setState({ kind: 'failed' });
      });
    return () => abort.abort();
  }, [name, token]);
  return state;
}

export function WhyDialog({ spec, onClose }: { spec: TileSpec; onClose: () => void }) {
  const { m, f } = useTexts();
  const state = useViewInfo(spec.view);
  const view = useBoard((board) => board.views[spec.view]);
  const row = view ? firstRow(view.rows) : null;
  const info = state.kind === 'ready' ? state.info : null;
  return (
    <Dialog title={m.whyOf(m.kpi[spec.id])} onClose={onClose}>
      {info?.description && <p className={styles.description}>{info.description}</p>}
      <dl className={styles.facts}>
        <dt>{m.whyView}</dt>
        <dd>
          <code>{spec.view}</code>
        </dd>
        {info && (
          <>
            <dt>{m.whyMaintenance}</dt>
            <dd>
              {info.maintenance.startsWith('recompute')
                ? m.whyRecompute(info.maintenance.replace(/^recompute:?\s*/, ''))
                : m.whyIncremental}
            </dd>
          </>
        )}
        {view && view.asOfMs !== null && (
          <>
            <dt>{m.whyEpoch}</dt>
            <dd>{m.whyEpochValue(f.number(view.epoch, 'count'), f.dateTime(view.asOfMs))}</dd>
          </>
        )}
      </dl>
      <section>
        <h3 className={styles.heading}>{m.whyColumns}</h3>
        <table className={styles.columns}>
          <tbody>
            {(view?.columns ?? info?.columns ?? []).map((column) => (
              <tr key={column.name} className={column.name === spec.column ? styles.used : undefined}>
                <th scope="row">
                  <code>{column.name}</code>
                  {column.name === spec.column && <span className={styles.tag}>{m.usedColumn}</span>}
                </th>
                <td>{sqlType(column.type)}</td>
                <td className={styles.cell}>{f.cell(row?.[column.name])}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
      <section>
        <h3 className={styles.heading}>{m.whySql}</h3>
        {info ? (
          // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard.
          <pre className={styles.sql} tabIndex={0}>
            {info.sql.trim()}
          </pre>
        ) : (
          <p>{state.kind === 'loading' ? m.loading : m.whyFailed}</p>
        )}
      </section>
    </Dialog>
  );
}
