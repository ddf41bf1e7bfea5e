/** Serves packed tarballs, and what pnpm has installed for the workspace, as a registry on the loopback interface. */
export declare function startLoopbackRegistry(
  tarballs: ReadonlyMap<string, string>,
): Promise<{ readonly url: string; readonly close: () => Promise<void> }>;
