/** Programs of our own making in processes of their own, on the built package. */
import { spawn } from 'node:child_process';
import path from 'node:path';

import { bundledModel, onTestDevice } from './engine';

const root = path.resolve(__dirname, '../..');

/** The module that `require` gives in a script. */
export const builtPackage = path.join(root, 'dist/index.js');

/** How a script ended. */
export interface ScriptResult {
  code: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

const configOf = (tensorParallelSize: 1 | 2) => onTestDevice({ model: bundledModel, parallel: { tensorParallelSize } });

/**
 * Runs a script that sees `Engine`, the options `alone` and `paired` of one and of two ranks with the bundled model on
 * the test device, `tokenIds`, and `resources`; resolves when it exits. A rejection that nobody handles ends it with its
 * stack and code 1.
 */
export function runScript(body: string, timeoutMs = 60_000): Promise<ScriptResult> {
  const script = `
    const { Engine } = require(${JSON.stringify(builtPackage)});
    const { resources } = require(${JSON.stringify(path.join(__dirname, 'resources.cjs'))});
    const [alone, paired] = ${JSON.stringify(([1, 2] as const).map(configOf))};
    const tokenIds = Array.from({ length: 40 }, (_, i) => 6 + i);
    (async () => { ${body} })();`;
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['--unhandled-rejections=strict', '-e', script], {
      cwd: root,
      timeout: timeoutMs,
    });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (data: Buffer) => (stdout += data.toString()));
    child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}
