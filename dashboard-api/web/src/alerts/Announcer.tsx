/**
 * Reads out new alerts and the loss of the connection, politely and not too often; keeps the count in the tab's title.
 */
import { useEffect, useRef, useState } from 'react';
import { useBoard } from '../live/context';
import { useTexts } from '../messages';
import styles from './Announcer.module.css';

/** Arrivals within this time are announced together. */
const GATHER_MS = 2_000;

export function Announcer() {
  const { m } = useTexts();
  const arrivals = useBoard((board) => board.arrivals);
  const firing = useBoard((board) => board.alerts.firing.length);
  const lost = useBoard((board) => board.connection.kind === 'lost');
  const [text, setText] = useState('');
  const announced = useRef(arrivals.at(-1)?.alert_id);
  const wasLost = useRef(lost);

  useEffect(() => {
    document.title = m.tabTitle(firing);
  }, [m, firing]);

  useEffect(() => {
    const last = arrivals.at(-1);
    if (!last || last.alert_id === announced.current) return;
    const timer = setTimeout(() => {
      const known = arrivals.findIndex((alert) => alert.alert_id === announced.current);
      const fresh = arrivals.slice(known + 1);
      announced.current = last.alert_id;
      const worst = fresh.reduce((a, b) => (b.priority > a.priority ? b : a), last);
      setText(
        fresh.length === 1
          ? m.announceOne(m.severity[worst.severity], worst.title)
          : m.announceMany(fresh.length, worst.title),
      );
    }, GATHER_MS);
    return () => clearTimeout(timer);
  }, [arrivals, m]);

  useEffect(() => {
    if (wasLost.current === lost) return;
    wasLost.current = lost;
    setText(lost ? m.announceOffline : m.announceOnline);
  }, [lost, m]);

  return (
    <p role="status" className={styles.hidden} data-testid="announcer">
      {text}
    </p>
  );
}
