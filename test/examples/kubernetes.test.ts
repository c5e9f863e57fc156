/**
 * Compares the manifests for Kubernetes with its own schemas, with one another, and with what they say of this package.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import Fastify from 'fastify'
import { Deployment } from 'kubernetes-models/apps/v1/Deployment'
import { PodDisruptionBudget } from 'kubernetes-models/policy/v1/PodDisruptionBudget'
import { Secret } from 'kubernetes-models/v1/Secret'
import { Service } from 'kubernetes-models/v1/Service'
import t from 'tap'
import { parseAllDocuments } from 'yaml'
import { resolveTiming } from '../../plugin/core/time/timing.js'
import workerCoordination from '../../plugin/index.js'
import { useSqlite } from '../support/databases.js'
import { eventually } from '../support/eventually.js'

const models = { Deployment, PodDisruptionBudget, Secret, Service }
const folder = join(projectRoot(), 'examples/kubernetes')

/** Returns every object of every manifest, by its kind. */
function manifests(): Map<string, Record<string, unknown>> {
  const files = readdirSync(folder).filter((name) => name.endsWith('.yaml'))
  const documents = files.flatMap((name) => parseAllDocuments(readFileSync(join(folder, name), 'utf8')))
  return new Map(
    documents.map((document) => {
      if (document.errors.length > 0) throw document.errors[0]
      const object = document.toJS() as Record<string, unknown>
      return [String(object.kind), object]
    }),
  )
}

t.test('each Kubernetes object is valid by the schema of its kind', async (t) => {
  const objects = manifests()
  t.strictSame([...objects.keys()].sort(), Object.keys(models).sort())
  for (const [kind, Model] of Object.entries(models)) {
    const object = objects.get(kind)
    t.doesNotThrow(() => new Model(object as never).validate(), kind)
    const { spec, ...broken } = object as { spec: unknown }
    if (spec !== undefined) {
      const strange = { ...broken, spec: { ...(spec as object), ports: 7, template: 7, minAvailable: {} } }
      t.throws(() => new Model(strange as never).validate(), `${kind}: the schema is heard`)
    }
  }
})

t.test('the Kubernetes objects fit one another, and the time that passes are promised', async (t) => {
  const objects = manifests()
  const { spec } = new Deployment(objects.get('Deployment') as never)
  const labels = spec?.template.metadata?.labels
  const [container] = spec?.template.spec?.containers ?? []
  t.strictSame(spec?.selector.matchLabels, labels)
  t.strictSame(new Service(objects.get('Service') as never).spec?.selector, labels)
  const budget = new PodDisruptionBudget(objects.get('PodDisruptionBudget') as never).spec
  t.strictSame(budget?.selector?.matchLabels, labels)
  t.ok(Number(budget?.minAvailable) < Number(spec?.replicas), 'a drain of machines is possible')

  const secret = new Secret(objects.get('Secret') as never)
  const reference = container?.env?.find(({ name }) => name === 'DATABASE_URL')?.valueFrom?.secretKeyRef
  t.equal(reference?.name, secret.metadata?.name)
  t.ok(reference?.key !== undefined && reference.key in (secret.stringData ?? {}))

  const graceMs = 1_000 * (spec?.template.spec?.terminationGracePeriodSeconds ?? 0)
  t.ok(graceMs > resolveTiming({}).drainTimeoutMs, 'passes are given the time they are promised')
  const ports = container?.ports?.map(({ name }) => name)
  for (const probe of [container?.livenessProbe, container?.readinessProbe])
    t.ok(ports?.includes(String(probe?.httpGet?.port)))
})

t.test('the probes are answered as Kubernetes asks them', async (t) => {
  const { spec } = new Deployment(manifests().get('Deployment') as never)
  const [container] = spec?.template.spec?.containers ?? []
  const app = Fastify()
  t.teardown(() => app.close())
  const { url } = await useSqlite(t)
  await app.register(workerCoordination, { database: url })
  await app.ready()
  // Kubernetes asks by the address of the pod and names no user.
  const asked = {
    remoteAddress: '10.42.0.1',
    headers: { host: '10.42.0.17:3000', 'user-agent': 'kube-probe/1.34' },
  }
  for (const probe of [container?.livenessProbe, container?.readinessProbe]) {
    const path = probe?.httpGet?.path ?? ''
    await eventually(async () => (await app.inject({ url: path, ...asked })).statusCode === 200)
  }
})

function projectRoot(): string {
  let at = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(at, 'tsconfig.json')) || !existsSync(join(at, 'plugin'))) at = dirname(at)
  return at
}
