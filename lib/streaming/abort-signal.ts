/**
 * Listening to the signals of callers.
 *
 * @module
 */
import { defaultMaxListeners, getMaxListeners, setMaxListeners } from 'node:events';

/**
 * Calls `listener` once when the signal is aborted. Many requests may share a signal, as at a server's shutdown; Node would
 * take more than ten listeners for a leak, so a limit that its owner did not set is lifted.
 */
export function onAbort(signal: AbortSignal, listener: () => void): void {
  if (signal instanceof EventTarget && getMaxListeners(signal) === defaultMaxListeners)
    setMaxListeners(Infinity, signal);
  signal.addEventListener('abort', listener, { once: true });
}
