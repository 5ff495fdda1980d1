"""The VISSL side of the package: importing it makes VISSL 0.1.6 run on a current stack and adds our parts to it.

The only room that imports vissl, classy_vision, hydra or omegaconf. Spawned ranks and loader workers import it
again, because the objects they unpickle live in it.
"""

from vissl_jointssl.plugin.compat import install

install()

from vissl_jointssl.plugin.registration import register  # noqa: E402 - VISSL cannot be imported before install()

register()
