export interface BuildAddonOptions {
  /** The CMake project: holds CMakeLists.txt and a package.json with binary.napi_versions and the build dependencies. */
  readonly projectDirectory: string;
  /** Out-of-tree build folder; the addon lands in its folder Release. */
  readonly outputDirectory: string;
  /** The folder `native` of the repository, or a package's copy of it; CMake's KVASIR_NATIVE. */
  readonly nativeDirectory: string;
  /** Folders and files below nativeDirectory whose change means a new build. */
  readonly sources: readonly string[];
  /** CMake's KVASIR_BACKEND: names the addon and the static library it links. */
  readonly backend: string;
  /** Further CMake definitions. */
  readonly definitions?: Readonly<Record<string, string>>;
  /** Where progress goes; standard error by default. */
  readonly log?: (line: string) => void;
}

/** A build that could not be done; the message is for a person and complete. */
export declare class BuildError extends Error {}

/** Where `buildAddon` puts the addon. */
export declare function addonFile(options: Pick<BuildAddonOptions, 'outputDirectory' | 'backend'>): string;

/**
 * Builds the addon unless a stamp says that nothing that goes into it has changed. Safe to call from several processes.
 * @throws BuildError naming missing tools with their packages, or with the end of the compiler's output
 */
export declare function buildAddon(
  options: BuildAddonOptions,
): Promise<{ readonly file: string; readonly built: boolean }>;
