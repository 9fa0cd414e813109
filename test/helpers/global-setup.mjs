// Before any test: dist/ is what lib/ says. Tests that start programs run the compiled package.
import { buildTypeScript } from '../../scripts/build-ts.mjs';

export default () => buildTypeScript();
