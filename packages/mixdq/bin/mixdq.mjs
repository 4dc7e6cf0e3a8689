#!/usr/bin/env node
// The command line of mixdq-web, with the default model of this package.
import { fileURLToPath } from "node:url";

process.env.MIXDQ_MODEL ??= fileURLToPath(new URL("../models/postcard", import.meta.url));
await import("mixdq-web/cli"); // runs as it is imported
