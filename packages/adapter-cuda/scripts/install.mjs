// npm's install script: builds the addon where the package is a dependency. In a checkout `build:native` does it, after
// every package is in place.
import { isWorkspace } from './native-sources.mjs';

if (!isWorkspace) await import('./build-native.mjs');
