// `npm start`: sets up what is missing, then generates text from the bundled model.
import { main, run } from './common.mjs';
import { setUp } from './setup.mjs';

await main(async () => {
  await setUp();
  const demo = await run(process.execPath, ['dist/cli/demo.js', ...process.argv.slice(2)], { mayFail: true });
  return demo.code ?? 1;
});
