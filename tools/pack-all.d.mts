/** Packs into `folder`; tarballs by package name. With `names`, those packages and what they need of the workspace. */
export declare function packAll(folder: string, names?: readonly string[] | null): Promise<ReadonlyMap<string, string>>;
