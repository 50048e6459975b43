"""What a hostile program would try, as Python source that runs inside a sandbox.

Each defines ``attack``; raising ``OSError`` (or returning a false value) means it was refused.
``secrets`` holds what the test put outside: paths, ports, process ids.
"""

HARNESS = """
import ctypes, errno, json, os, pathlib, socket, struct, subprocess, sys
secrets = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(each) if isinstance(each, int)
        else each for each in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return True
X86 = os.uname().machine == "x86_64"
{attack}
try:
    result = attack()
except (OSError, subprocess.SubprocessError) as error:
    print("refused:", error)
else:
    print("SUCCEEDED: %r" % (result,) if result else "refused: nothing there")
"""

READS = {
    "shadow": "def attack(): return open('/etc/shadow').read()",
    "home of root": "def attack(): return os.listdir('/root') and open(secrets['file']).read()",
    "a private file of the host": "def attack(): return open(secrets['file']).read()",
    "a world-readable file of the host": "def attack(): return open(secrets['public']).read()",
    "state of the platform": "def attack(): return os.listdir(secrets['state'])",
    "sockets of the platform": "def attack(): return os.listdir(secrets['run'])",
    "disks": "def attack(): return [n for n in os.listdir('/dev') if n[:2] in ('sd', 'vd', 'nv')]",
    "kernel memory": "def attack(): return open('/proc/kcore', 'rb').read(64)",
    "kernel log": "def attack(): return open('/dev/kmsg').read(1)",
    "the root of another process": """
def attack():
    found = []
    for pid in os.listdir('/proc'):
        if pid.isdigit():
            try:
                found += [p for p in (secrets['file'], secrets['public'])
                          if os.path.exists(f'/proc/{pid}/root{p}')]
            except OSError:
                pass
    return found
""",
    "open descriptors of the host": """
def attack():
    found = []
    for pid in ('self', '1'):
        for fd in os.listdir(f'/proc/{pid}/fd'):
            try:
                target = os.readlink(f'/proc/{pid}/fd/{fd}')
            except OSError:
                continue
            if target.startswith('/') and not target.startswith(('/dev/null', '/proc')):
                found.append(target)
    return found
""",
    "environment of the platform": """
def attack():
    found = []
    for pid in os.listdir('/proc'):
        if pid.isdigit() and pid != str(os.getpid()):
            try:
                data = open(f'/proc/{pid}/environ', 'rb').read()
                found += [pid] if secrets['password'].encode() in data else []
            except OSError:
                pass
    return found
""",
    "a secret in any command line": """
def attack():
    own = str(os.getpid())
    return [p for p in os.listdir('/proc') if p.isdigit() and p != own
            and secrets['password'].encode() in open(f'/proc/{p}/cmdline', 'rb').read()
            and b'secrets' not in open(f'/proc/{p}/cmdline', 'rb').read()]
""",
}

PROCESSES = {
    "see other processes": """
def attack():
    return [p for p in os.listdir('/proc') if p.isdigit() and int(p) > 50]
""",
    "signal the host's processes": "def attack(): os.kill(secrets['victim'], 9); return True",
    "signal everything": """
def attack():
    try:
        os.kill(-1, 0)  # reaches what is in here, and only that
    except ProcessLookupError:
        pass
    os.kill(secrets['victim'], 0)
    return True
""",
    "trace another process": """
def attack():
    child = os.fork()
    if child == 0:
        import signal
        signal.pause()
    try:
        return call(101 if X86 else 117, 16, child, 0, 0)
    finally:
        os.kill(child, 9)
""",
    "trace the first process": "def attack(): return call(101 if X86 else 117, 16, 1, 0, 0)",
    "read memory of the first process": "def attack(): return open('/proc/1/mem', 'rb').read(1)",
    "process_vm_readv": "def attack(): return call(310 if X86 else 270, 1, None, 0, None, 0, 0)",
    "take a descriptor of another process": """
def attack():
    return call(438, os.pidfd_open(1), 0, 0)
""",
}

NETWORK = {
    "a service of the host by loopback": """
def attack(): return socket.create_connection(('127.0.0.1', secrets['port']), 2)
""",
    "a service of the host by loopback, IPv6": """
def attack(): return socket.create_connection(('::1', secrets['port']), 2)
""",
    "metadata of the cloud": """
def attack(): return socket.create_connection(('169.254.169.254', 80), 2)
""",
    "the internet": "def attack(): return socket.create_connection(('1.1.1.1', 443), 2)",
    "the internet, IPv6": """
def attack(): return socket.create_connection(('2606:4700:4700::1111', 443), 2)
""",
    "a name server": """
def attack():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(2)
    return s.sendto(b'x' * 20, ('9.9.9.9', 53))
""",
    "multicast": """
def attack():
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('224.0.0.251', 5353))
""",
    "another interface": """
def attack(): return [name for _, name in socket.if_nameindex() if name != 'lo']
""",
    "raw sockets": "def attack(): return socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "packet sockets": "def attack(): return socket.socket(17, socket.SOCK_RAW, 0x0300)",
    "the hypervisor": "def attack(): return socket.socket(40, socket.SOCK_STREAM)",
    "bluetooth, crypto and other families": """
def attack():
    found = []
    for family in range(1, 46):
        if family not in (1, 2, 10, 16):
            for kind in (1, 2, 3, 5):
                try:
                    socket.socket(family, kind).close()
                    found.append(family)
                except OSError:
                    pass
    return found
""",
    "netlink other than routes": """
def attack():
    found = []
    for protocol in range(1, 23):
        try:
            socket.socket(16, socket.SOCK_RAW, protocol).close()
            found.append(protocol)
        except OSError:
            pass
    return found
""",
    "add an interface": """
def attack():
    s = socket.socket(16, socket.SOCK_RAW, 0)
    s.bind((0, 0))
    name = b'dummy9\\0'
    attribute = struct.pack('HH', 4 + len(name), 3) + name.ljust(8, b'\\0')
    body = struct.pack('BxHiII', 0, 0, 0, 0, 0) + attribute
    s.send(struct.pack('IHHII', 16 + len(body), 16, 0x605, 1, 0) + body)
    error = -struct.unpack('i', s.recv(4096)[16:20])[0]
    if error:
        raise OSError(error, os.strerror(error))
    return True
""",
    "abstract sockets of the host": """
def attack():
    s = socket.socket(socket.AF_UNIX)
    s.connect('\\0' + secrets['abstract'])
    return True
""",
    "the host's loopback device": """
def attack(): return [line for line in open('/proc/net/tcp') if secrets['port_hex'] in line]
""",
    "the control socket": """
def attack():
    s = socket.socket(socket.AF_UNIX)
    s.connect(secrets['control'])
    return True
""",
}

KERNEL = {
    "mount": """
def attack():
    if libc.mount(b'none', b'/tmp', b'tmpfs', 0, b''):
        raise OSError(ctypes.get_errno(), 'mount')
    return True
""",
    "open a mount tree": "def attack(): return call(428, -100, b'/', 1)",
    "unmount": """
def attack():
    if libc.umount2(b'/usr', 2):
        raise OSError(ctypes.get_errno(), 'umount')
    return True
""",
    "a new user namespace": """
def attack():
    if libc.unshare(0x10000000):
        raise OSError(ctypes.get_errno(), 'unshare')
    return True
""",
    "a new user namespace by clone": """
def attack(): return call(56 if X86 else 220, 0x10000000 | 17, 0, 0, 0, 0)
""",
    "a new user namespace by clone3": """
def attack():
    arguments = struct.pack('QQQQQQQQ', 0x10000000, 0, 0, 0, 17, 0, 0, 0)
    return call(435, arguments, len(arguments))
""",
    "join a namespace": """
def attack():
    fd = os.open('/proc/self/ns/user', os.O_RDONLY)
    if libc.setns(fd, 0):
        raise OSError(ctypes.get_errno(), 'setns')
    return True
""",
    "chroot": "def attack(): os.chroot('/tmp'); return True",
    "become root": "def attack(): os.setuid(0); return True",
    "setuid programs": """
def attack():
    for name in ('su', 'mount', 'passwd', 'sudo', 'newgrp'):
        path = f'/usr/bin/{name}'
        if os.path.exists(path) and os.stat(path).st_mode & 0o4000 and os.stat(path).st_uid == 0:
            return path
""",
    "write to the read-only root": """
def attack():
    done = []
    for path in ('/x', '/usr/x', '/etc/x', '/etc/passwd', '/etc/ld.so.preload', '/bin/x',
                 '/usr/bin/env', '/dev/x', '/home/x', '/run/x', '/proc/sys/kernel/core_pattern',
                 '/proc/sysrq-trigger', '/proc/sys/kernel/hostname', '/proc/1/oom_score_adj'):
        try:
            with open(path, 'a') as file:
                file.write('x')
            done.append(path)
        except OSError:
            pass
    return done
""",
    "lower its own out-of-memory score": """
def attack():
    with open('/proc/self/oom_score_adj', 'w') as file:
        file.write('-500')
    return True
""",
    "type into a terminal": """
def attack():
    import fcntl
    main, other = os.openpty()
    fcntl.ioctl(other, 0x5412, b'x')
    return True
""",
    "make a device": """
def attack():
    os.mknod('/tmp/disk', 0o60600, os.makedev(254, 0))
    return True
""",
    "load a module": "def attack(): return call(313 if X86 else 273, 0, b'', 0)",
    "bpf": "def attack(): return call(321 if X86 else 280, 0, bytes(128), 128)",
    "perf": "def attack(): return call(298 if X86 else 241, bytes(128), 0, -1, -1, 0)",
    "userfaultfd": "def attack(): return call(323 if X86 else 282, 1)",
    "io_uring": "def attack(): return call(425, 8, bytes(120))",
    "keys of the kernel": "def attack(): return call(250 if X86 else 219, 0, -3, 1)",
    "add a key": "def attack(): return call(248 if X86 else 217, b'user', b'a', b'b', 1, -3)",
    "open by handle": "def attack(): return call(304 if X86 else 265, -100, bytes(128), 0)",
    "personality": "def attack(): return call(135 if X86 else 92, 0x0040000)",
    "32-bit system calls of x32": """
def attack():
    return call(0x40000000 + 39) if X86 else None
""",
    "clock": "def attack(): import time; time.clock_settime(time.CLOCK_REALTIME, 0); return True",
    "host name": "def attack(): socket.sethostname('x'); return True",
    "real-time priority": """
def attack():
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    return True
""",
    "raise its own limits": """
def attack():
    import resource
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1))
    return True
""",
    "capabilities": """
def attack():
    lines = dict(line.split(':\\t') for line in open('/proc/self/status').read().splitlines()
                 if ':\\t' in line)
    kept = [n for n in ('CapPrm', 'CapEff', 'CapInh', 'CapAmb') if int(lines[n], 16)]
    return kept or lines['NoNewPrivs'] != '1' or lines['Seccomp'] != '2'
""",
}

TUNNEL = """
def attack():
    with socket.create_connection(('127.0.0.1', 3128), 10) as way:
        where = '{host}:%d' % secrets['port']
        way.sendall(('CONNECT %s HTTP/1.1\\r\\nhost: %s\\r\\n\\r\\n' % (where, where)).encode())
        answer = way.recv(65536)
        if not answer.startswith(b'HTTP/1.1 200'):
            raise OSError(answer.partition(b'\\r\\n')[0].decode())
        return True
"""
WAY_OUT_HOSTS = (
    *("127.0.0.1", "127.9.9.9", "0.0.0.0", "localhost"),
    *("127.1", "2130706433", "0x7f000001"),
)
WAY_OUT = {f"the host as {host}": TUNNEL.replace("{host}", host) for host in WAY_OUT_HOSTS}
"""Through the proxy that is the way out, by rules that the attacker wrote himself."""
