import { measure } from '../../lib/cli/bench';
import type { Engine } from '../../lib/index';

type Benched = Parameters<typeof measure>[0];

beforeEach(() => jest.useFakeTimers());
afterEach(() => jest.useRealTimers());

/** An engine whose i-th request brings a token at each of the moments `times[i]`, in milliseconds. */
function engineOf(times: number[][]): Benched {
  let generatedTokens = 7; // of an earlier measurement
  let numRequests = 0;
  async function* tokens(moments: number[]): AsyncGenerator {
    const start = performance.now();
    for (const moment of moments) {
      await new Promise((resolve) => setTimeout(resolve, start + moment - performance.now()));
      yield { tokenIds: Int32Array.of(++generatedTokens) };
    }
  }
  return {
    generate: () => tokens(times[numRequests++]!) as unknown as ReturnType<Engine['generate']>,
    stats: () => ({ generatedTokens }) as ReturnType<Engine['stats']>,
  };
}

async function rates(times: number[][]): Promise<Awaited<ReturnType<typeof measure>>> {
  const shape = { promptTokens: 100, maxTokens: times[0]!.length, sequences: times.length };
  const measured = measure(engineOf(times), shape, 0);
  await jest.runAllTimersAsync();
  return measured;
}

describe('heddle bench', () => {
  it('counts the tokens after the first as decoded', async () => {
    expect(await rates([[1000, 1500, 2000, 3000]])).toEqual({ prefill: 100, decode: 1.5 });
  });

  it('counts no token as decoded that came before the last first one', async () => {
    const early = [500, 600, 700, 1500];
    const late = [1000, 2000, 2500, 3000];
    expect(await rates([early, late])).toEqual({ prefill: 200, decode: 2 });
  });
});
