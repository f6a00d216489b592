// Compiles network/devnet/contracts into one JSON file per contract; arguments: the folder to write to.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import solc from "solc";

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");
const folder = join(root, "network", "devnet", "contracts");
const target = process.argv[2];
const names = readdirSync(folder).filter((name) => name.endsWith(".sol")).sort();
const sources = Object.fromEntries(
  names.map((name) => [name, { content: readFileSync(join(folder, name), "utf8") }]),
);
const input = {
  language: "Solidity",
  sources,
  settings: {
    // Older than the compiler's default: the chain in a process of its own knows no newer instructions.
    evmVersion: "paris",
    optimizer: { enabled: true, runs: 200 },
    // Without the hash of the sources' text, which a comment would change.
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } },
  },
};
const output = JSON.parse(solc.compile(JSON.stringify(input)));
const faults = (output.errors ?? []).map((fault) => fault.formattedMessage);
if (faults.length > 0) {
  console.error(faults.join("\n"));
  process.exit(1);
}
for (const name of names) {
  const contract = basename(name, ".sol");
  const found = output.contracts[name][contract];
  if (found.evm.bytecode.object === "") continue;
  const artifact = { abi: found.abi, bytecode: `0x${found.evm.bytecode.object}` };
  writeFileSync(join(target, `${contract}.json`), `${JSON.stringify(artifact, null, 1)}\n`);
}
