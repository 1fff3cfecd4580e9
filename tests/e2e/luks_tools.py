# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of LUKS volumes share: our tools, those that they stand in for, and cryptsetup, on one image."""
import subprocess

from harness import BUILD, PATIENCE_S, need, run

OUR_IMG = BUILD / 'compat' / 'qemu-img'
OUR_IO = BUILD / 'compat' / 'qemu-io'
PASSPHRASE = 'correct horse'
OTHER = 'battery staple'
SECRETS = ('--object', f'secret,id=sec0,data={PASSPHRASE}', '--object', f'secret,id=sec1,data={OTHER}')


def image_opts(path, secret='sec0', **more):
    """An image for --image-opts."""
    options = {'driver': 'luks', 'file.filename': path, **more}
    if secret:
        options['key-secret'] = secret
    return ','.join(f'{name}={value}' for name, value in options.items())


def patient(command):
    """What the command comes to. The peer now and then finds no clock to measure with, and says so: then once more."""
    for _ in range(100):
        done = command()
        if 'Unable to get accurate CPU usage' not in done.stderr:
            break
    return done


def create(img, path, size='1M', secret='sec0', **options):
    """Makes a volume."""
    words = ','.join([f'key-secret={secret}'] + [f'{name.replace("_", "-")}={value}' for name, value in options.items()])
    done = patient(lambda: run(img, 'create', '-q', '-f', 'luks', *SECRETS, '-o', words, path, size, check=False))
    assert done.returncode == 0, done.stderr


def our_create(path, size='1M', **options):
    create(OUR_IMG, path, size, **{'iter_time': 1, **options})


def their_create(path, size='1M', **options):
    create(need('qemu-img'), path, size, **{'iter_time': 100, **options})


def io(program, image, *commands, check=True):
    """Runs qemu-io or ours; what it says, without times."""
    words = [word for command in commands for word in ('-c', command)]
    done = run(program, *SECRETS, '--image-opts', image, *words, check=False)
    if check:
        assert done.returncode == 0 and 'failed' not in done.stdout, done.stdout + done.stderr
    return done


def amend(img, image, *options, force=False):
    """Status and message of an amend."""
    words = ['amend', *(['--force'] if force else []), *SECRETS, '--image-opts', image, '-o', ','.join(options)]
    done = patient(lambda: run(img, *words, check=False))
    return done.returncode, done.stderr


def cryptsetup(*words, passphrase=PASSPHRASE, check=True):
    """Runs cryptsetup; the passphrase is its input."""
    done = subprocess.run([need('cryptsetup'), '-q', *map(str, words)], input=passphrase, capture_output=True, text=True,
                          timeout=5 * PATIENCE_S, check=False)
    if check:
        assert done.returncode == 0, f'{words}: {done.stdout}{done.stderr}'
    return done


def opens(path, passphrase, *more):
    """Whether cryptsetup can unlock the volume."""
    return cryptsetup('luksOpen', '--test-passphrase', '--key-file', '-', *more, path, passphrase=passphrase,
                      check=False).returncode == 0


def active_slots(path):
    dump = cryptsetup('luksDump', path).stdout
    return [n for n in range(8) if f'Key Slot {n}: ENABLED' in dump]
