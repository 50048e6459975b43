# Any program that listens on $PORT can run: the Procfile's `web:` line starts it.
# Deploy it with `tram deploy examples/hello-procfile`; Perl is part of nearly every Linux.
use strict;
use warnings;
use IO::Socket::INET;

my $server = IO::Socket::INET->new(
    LocalPort => $ENV{PORT} || 8080,
    Listen    => 128,
    ReuseAddr => 1,
) or die "cannot listen: $!\n";

local $SIG{TERM} = sub { exit 0 };
local $SIG{PIPE} = 'IGNORE';
local $SIG{CHLD} = 'IGNORE';
my $word = $ENV{GREETING} || 'Hello';

while (1) {
    my $client = $server->accept or next;
    next if fork;
    close $server;
    my $request = <$client> // '';
    while (my $line = <$client>) { last if $line =~ /^\r?\n$/ }
    my ($path) = $request =~ m{^GET\s+([^\s?]*)};
    my ($status, $body) = ('200 OK', qq({"message":"$word, world!","language":"perl"}));
    ($status, $body) = ('404 Not Found', '{"error":"not found"}')
        unless defined $path and ($path eq '/' or $path eq '/healthz');
    print $client "HTTP/1.1 $status\r\nContent-Type: application/json\r\nContent-Length: "
        . length($body) . "\r\nConnection: close\r\n\r\n$body";
    exit 0;
}
