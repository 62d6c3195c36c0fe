/** The page: header, what is wrong if anything is, key figures, chart, alerts. */
import { useEffect, useState, useSyncExternalStore } from 'react';
import { AlertList } from '../alerts/AlertList';
import { Announcer } from '../alerts/Announcer';
import { SalesChart } from '../chart/SalesChart';
import { Header } from '../header/Header';
import { KpiTile } from '../kpi/KpiTile';
import { TILES } from '../kpi/tiles';
import type { Live } from '../live/connection';
import { BoardProvider, useBoard } from '../live/context';
import type { BoardStore } from '../live/store';
import { initialLanguage, keepLanguage, type Language, MessagesProvider, useTexts } from '../messages';
import styles from './App.module.css';
import { Banner } from './Banner';
import { SignInPanel } from './SignInPanel';

const NARROW = '(max-width: 1099px)';

function subscribeNarrow(listener: () => void): () => void {
  const query = matchMedia(NARROW);
  query.addEventListener('change', listener);
  return () => query.removeEventListener('change', listener);
}

export function App({ store, live }: { store: BoardStore; live: Live }) {
  const [language, setLanguage] = useState(initialLanguage);
  useEffect(() => {
    document.documentElement.lang = language;
  }, [language]);
  const choose = (next: Language) => {
    keepLanguage(next);
    setLanguage(next);
  };
  return (
    <BoardProvider store={store} live={live}>
      <MessagesProvider language={language}>
        <div className={styles.page}>
          <Header language={language} onLanguage={choose} />
          <Board />
          <Announcer />
        </div>
      </MessagesProvider>
    </BoardProvider>
  );
}

function Board() {
  const { m } = useTexts();
  const signIn = useBoard((board) => board.signIn);
  const hasData = useBoard((board) => board.status !== null || board.alertsLoaded);
  const narrow = useSyncExternalStore(subscribeNarrow, () => matchMedia(NARROW).matches);
  if (signIn !== 'not_needed' && !hasData) {
    return (
      <main className={styles.centre}>
        <SignInPanel />
      </main>
    );
  }
  return (
    <main className={styles.main}>
      <div className={styles.banners}>
        <Banner />
        {signIn !== 'not_needed' && <SignInPanel />}
      </div>
      <div className={styles.board}>
        <div className={styles.alerts}>
          <AlertList narrow={narrow} />
        </div>
        <section className={styles.figures} aria-labelledby="kpis-title">
          <h2 id="kpis-title" className={styles.hidden}>
            {m.kpis}
          </h2>
          <ul className={styles.tiles}>
            {TILES.map((spec) => (
              <KpiTile key={spec.id} spec={spec} />
            ))}
          </ul>
        </section>
        <div className={styles.chart}>
          <SalesChart />
        </div>
      </div>
    </main>
  );
}
