import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { App } from './app/App';
import { VIEWS } from './kpi/tiles';
import { startLive } from './live/connection';
import { takeTokenFromAddress } from './live/session';
import { BoardStore } from './live/store';
import { startTheme } from './theme/theme';
import './theme/tokens.css';
import './theme/base.css';

takeTokenFromAddress(location, history);
startTheme();
const store = new BoardStore();
const live = startLive({ store, base: location.origin, views: VIEWS });

const root = document.getElementById('root');
if (!root) throw new Error('the page has no #root');
createRoot(root).render(
  <StrictMode>
    <App store={store} live={live} />
  </StrictMode>,
);
