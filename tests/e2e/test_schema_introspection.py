# SPDX-License-Identifier: LGPL-2.1-or-later
"""What query-qmp-schema says of the interface hangs together, and agrees with what the build leaves for programs."""
import json

import pytest

from harness import BUILD


@pytest.fixture
def entities(daemon):
    return daemon().qmp.command('query-qmp-schema')


def uses(entity):
    """The names of the types that an entity mentions."""
    found = [entity[key] for key in ('arg-type', 'ret-type', 'element-type') if key in entity]
    if entity['meta-type'] != 'enum':
        found += [member['type'] for member in entity.get('members', [])]
    return found + [variant['type'] for variant in entity.get('variants', [])]


def test_schema_names_unique(entities):
    names = [entity['name'] for entity in entities]
    assert len(names) == len(set(names))


def test_schema_every_type_described_and_used(entities):
    by_name = {entity['name']: entity for entity in entities}
    reached = [name for name, entity in by_name.items() if entity['meta-type'] in ('command', 'event')]
    for name in reached:
        reached += [used for used in uses(by_name[name]) if used not in reached]
    assert set(reached) == set(by_name)


def test_schema_arguments_are_objects(entities):
    by_name = {entity['name']: entity for entity in entities}
    for entity in entities:
        if 'arg-type' in entity:
            assert by_name[entity['arg-type']]['meta-type'] == 'object', entity


def test_schema_variants_cover_the_tag(entities):
    by_name = {entity['name']: entity for entity in entities}
    unions = [entity for entity in entities if 'tag' in entity]
    assert unions
    for union in unions:
        tag = next(member for member in union['members'] if member['name'] == union['tag'])
        assert 'default' not in tag
        assert [variant['case'] for variant in union['variants']] == by_name[tag['type']]['values']


def test_schema_features_of_commands(entities):
    by_name = {entity['name']: entity for entity in entities}
    assert by_name['x-debug-query-block-graph']['features'] == ['unstable']
    assert 'features' not in by_name['block-export-add']


def test_schema_as_built(entities):
    assert json.loads((BUILD / 'src' / 'gen' / 'schema.json').read_text()) == entities


def test_schema_manual_names_every_command(entities):
    manual = (BUILD / 'docs' / 'ashlar-storaged-qmp-ref.7').read_text().replace('\\-', '-')
    for entity in entities:
        if entity['meta-type'] in ('command', 'event'):
            assert f'.SS "{entity["name"]} ({entity["meta-type"]})"' in manual
