/** Starts nginx with locations that a test gives, in a folder of its own. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Lifetime } from './databases.js'
import { eventually } from './eventually.js'
import { freePort } from './ports.js'

/** Options of a test that needs nginx. */
export const withNginx = await promisify(execFile)('nginx', ['-v']).then(
  () => ({}),
  () => ({ skip: 'there is no nginx on this machine (Debian: apt-get install nginx-light)' }),
)

/** Returns the origin at which it listens. */
export async function useNginx(t: Lifetime, locations: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'coordination-nginx-'))
  const port = await freePort()
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (name) => `${name}_temp_path ${folder}/${name};`,
  )
  await writeFile(
    join(folder, 'nginx.conf'),
    `daemon off; master_process off; pid ${folder}/pid; error_log ${folder}/error.log;
     events {}
     http {
       access_log off; ${paths.join(' ')}
       server {
         listen 127.0.0.1:${port};
         ${locations}
       }
     }`,
  )
  const child = spawn('nginx', [
    '-p',
    folder,
    '-e',
    join(folder, 'error.log'),
    '-c',
    join(folder, 'nginx.conf'),
  ])
  t.teardown(async () => {
    if (child.exitCode === null) {
      child.kill('SIGTERM')
      await once(child, 'exit')
    }
    await rm(folder, { recursive: true, force: true })
  })
  const front = `http://127.0.0.1:${port}`
  await eventually(async () => (await fetch(`${front}/`)).status === 404)
  return front
}
