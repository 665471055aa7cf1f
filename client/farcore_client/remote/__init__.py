"""A dump on a server, read as if it were here: ``connect`` gives a RemoteDump, whose sources are cached, page by page.

readahead, link     pure: what a read calls for; what the way to the server is worth
cache, filing       pages in fixed memory; an answer, put there
pages               what is here, what is on its way, who waits (any thread)
stream, pipe        large pieces ahead of a reader in sequence, over one blocking connection
pagefile, shelf     what stays on disk for later sessions
courier             requests, retries, lanes (a thread and a connection each)
source, dump        the Sources, and what holds them together
"""

from farcore_client.remote.dump import Counts, RemoteDump, connect, opened, through
from farcore_client.remote.pages import Missed
from farcore_client.remote.source import RemoteSource

__all__ = ["Counts", "Missed", "RemoteDump", "RemoteSource", "connect", "opened", "through"]
