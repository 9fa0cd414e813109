/** What transformers computed for a checkpoint, and how closely an engine agrees. */
import { readFileSync } from 'node:fs';
import path from 'node:path';

import type { Engine } from '../../lib/index';
import type { TokenLogprobs } from '../../types/index';
import { rowOf } from './engine';
import { sharedPath } from './shared-data';

export interface Golden {
  prompts: number[][];
  /** For each prompt, the ids of float32 greedy decoding, ends ignored. */
  greedy: number[][];
  /** For each prompt and generated position, the best ids and their log-probabilities. */
  steps: { ids: number[]; logprobs: number[] }[][];
  /** For each prompt, the log-probability of each prompt token after the first. */
  prompt_logprobs?: number[][];
  text?: string[];
  eval_chat_nll?: number;
}

export function readGolden(folder: string): Golden {
  return JSON.parse(readFileSync(path.join(folder, 'golden.json'), 'utf8')) as Golden;
}

/** Golden values are rounded to five digits. */
export const TOLERANCE = 1e-3;

/** Log-probabilities are close enough where the reference's margin decides the greedy id. */
function marginOf(step: { logprobs: number[] }): number {
  return step.logprobs[0]! - step.logprobs[1]!;
}

function worst(reference: { ids: number[]; logprobs: number[] }, row: Map<number, number>): number {
  return Math.max(...reference.ids.map((id, i) => Math.abs(row.get(id)! - reference.logprobs[i]!)));
}

/** Largest deviation of teacher-forced log-probabilities, over the prompt and the reference's continuation. */
export async function teacherForcedError(engine: Engine, golden: Golden): Promise<number> {
  const errors = await Promise.all(
    golden.prompts.map(async (prompt, p) => {
      const tokenIds = [...prompt, ...golden.greedy[p]!];
      const params = { maxTokens: 1, temperature: 0, promptLogprobs: -1, ignoreEos: true, detokenize: false };
      const { promptLogprobs } = await engine.generate({ tokenIds }, params).final();
      const own = promptLogprobs!;
      const given = golden.prompt_logprobs?.[p] ?? [];
      const inPrompt = given.map((logprob, i) => Math.abs(rowOf(own, i).get(prompt[i + 1]!)! - logprob));
      const inOutput = golden.steps[p]!.map((step, i) => worst(step, rowOf(own, prompt.length - 1 + i)));
      return Math.max(...inPrompt, ...inOutput);
    }),
  );
  return Math.max(...errors);
}

/** Ids and largest deviation of greedy decoding, up to the first position that the reference's margin leaves open. */
export async function greedyAgreement(
  engine: Engine,
  golden: Golden,
): Promise<{ mismatches: string[]; error: number }> {
  const mismatches: string[] = [];
  let error = 0;
  await Promise.all(
    golden.prompts.map(async (prompt, p) => {
      const steps = golden.steps[p]!;
      const params = { maxTokens: steps.length, temperature: 0, logprobs: -1, ignoreEos: true, detokenize: false };
      const [completion] = (await engine.generate({ tokenIds: prompt }, params).final()).outputs;
      const logprobs: TokenLogprobs = completion!.logprobs!;
      for (let i = 0; i < steps.length; i++) {
        error = Math.max(error, worst(steps[i]!, rowOf(logprobs, i)));
        const [own, expected] = [completion!.tokenIds[i]!, golden.greedy[p]![i]!];
        if (own === expected) continue;
        if (marginOf(steps[i]!) > TOLERANCE) mismatches.push(`prompt ${p} token ${i}: ${own}, expected ${expected}`);
        break;
      }
    }),
  );
  return { mismatches, error };
}

/** Mean loss in nats over the evaluation set; the first id of each list is not scored. */
export async function evalChatNll(engine: Engine): Promise<number> {
  const lists = JSON.parse(readFileSync(sharedPath('models/eval-chat.json'), 'utf8')) as number[][];
  let sum = 0;
  let count = 0;
  await Promise.all(
    lists.map(async (tokenIds) => {
      const params = { maxTokens: 1, temperature: 0, promptLogprobs: 0, ignoreEos: true, detokenize: false };
      const { promptLogprobs } = await engine.generate({ tokenIds }, params).final();
      for (const logprob of promptLogprobs!.logprobs) sum -= logprob;
      count += promptLogprobs!.logprobs.length;
    }),
  );
  return sum / count;
}
