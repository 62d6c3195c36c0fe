"""Django Channels as bench-live.sh measures it: every WebSocket joins one group, and POST /api/publish tells the group.

`daphne -b 127.0.0.1 -p PORT channels_peer:application`, with REDIS_URL set. Nothing but the framework's own parts and
defaults, except that its layer may hold more messages than the hundred after which it drops them.
"""

import json
import os

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter
from django.conf import settings
from django.http import JsonResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of a benchmark on this machine",
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels_redis." + os.environ.get("CHANNELS_LAYER", "core.RedisChannelLayer"),
            "CONFIG": {"hosts": [os.environ["REDIS_URL"]], "capacity": 1_000_000},
        }
    },
)
django.setup(set_prefix=False)

from django.core.asgi import get_asgi_application  # noqa: E402  (needs the settings)


class Screen(AsyncWebsocketConsumer):
    groups = ["bench0"]

    async def connect(self):
        await self.accept()
        await self.send('{"subscribe":{}}')

    async def tell(self, event):
        await self.send(event["text"])


async def publish(request):
    message = json.loads(request.body)
    text = json.dumps(message["data"], separators=(",", ":"))
    await get_channel_layer().group_send(message["channel"], {"type": "tell", "text": text})
    return JsonResponse({})


urlpatterns = [path("api/publish", publish)]
application = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": Screen.as_asgi()})
