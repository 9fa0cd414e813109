/**
 * How long it takes until there is an engine, and until there is none.
 *
 * @module
 */
import type { Engine } from '../index';
import type { Figures } from './legend';
import { syntheticPrompt, timeRequest, type MeasuredEngine } from './timed-request';

/** All from the call of `Engine.create`. */
export const STARTUP_LEGEND = {
  create_s: { label: 'created, s', meaning: 'until Engine.create() resolved' },
  first_token_s: { label: 'first token, s', meaning: 'until the first request, made then, had its first token' },
  closed_s: { label: 'closed, s', meaning: 'until close(), called then, resolved' },
} as const;

/** Opens an engine, generates one token and closes it. */
export async function measureStartup(
  open: () => Promise<MeasuredEngine & Pick<Engine, 'close'>>,
  promptTokens: number,
): Promise<Figures<typeof STARTUP_LEGEND>> {
  const start = performance.now();
  const secondsSoFar = (): number => (performance.now() - start) / 1e3;
  const engine = await open();
  const created = secondsSoFar();
  let firstToken = NaN;
  try {
    await timeRequest(engine, { prompt: syntheticPrompt(promptTokens, 0), maxTokens: 1 });
    firstToken = secondsSoFar();
  } finally {
    await engine.close();
  }
  return { create_s: created, first_token_s: firstToken, closed_s: secondsSoFar() };
}
