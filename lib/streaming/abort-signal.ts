/**
 * Listening to the signals of callers.
 *
 * @module
 */

/** Who waits for a signal, and how the signal knows of them. */
interface Audience {
  readonly listeners: Set<() => void>;
  readonly tellAll: () => void;
}

const audiences = new WeakMap<AbortSignal, Audience>();

/**
 * Calls `listener` once when the signal is aborted. Many requests may share a signal, as at a server's shutdown, and Node
 * takes more than ten listeners for a leak: all of them share one.
 */
export function onAbort(signal: AbortSignal, listener: () => void): void {
  audienceOf(signal).listeners.add(listener);
}

/** Forgets a listener. The signal of the last one is let go of. */
export function offAbort(signal: AbortSignal, listener: () => void): void {
  const audience = audiences.get(signal);
  if (!audience?.listeners.delete(listener) || audience.listeners.size > 0) return;
  audiences.delete(signal);
  signal.removeEventListener('abort', audience.tellAll);
}

function audienceOf(signal: AbortSignal): Audience {
  const known = audiences.get(signal);
  if (known) return known;
  const listeners = new Set<() => void>();
  const tellAll = (): void => {
    audiences.delete(signal);
    for (const listener of listeners) {
      try {
        listener();
      } catch {
        // The others are told all the same, and what a signal's listener throws would end the process.
      }
    }
  };
  signal.addEventListener('abort', tellAll, { once: true });
  const audience = { listeners, tellAll };
  audiences.set(signal, audience);
  return audience;
}
