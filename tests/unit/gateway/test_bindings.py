"""Which models a service's way leads to."""

from tramontane.domain.route import EgressRoute, ServiceRoute, Upstream
from tramontane.gateway.bindings import choose_bound, make_binding_routes


def model(name: str, project: str = "shop") -> ServiceRoute:
    target = Upstream(name=f"{project}-{name}@1", endpoints=None)
    return ServiceRoute(project=project, service=name, model=name, target=target)


def way(*models: str) -> EgressRoute:
    return EgressRoute(
        service_id="svc_1",
        project="shop",
        service="app",
        socket="/run/out",
        rules=(),
        models=models,
        models_socket="/run/models",
    )


def test_only_named_models_of_the_same_project_are_bound() -> None:
    web = ServiceRoute(
        project="shop", service="chat", target=Upstream(name="shop-web@1", endpoints=())
    )
    there = [model("chat", "elsewhere"), model("chat"), model("other"), web]
    assert choose_bound(way("chat", "later"), there) == [model("chat")]


def test_the_routes_name_no_cluster_but_those_of_bound_models() -> None:
    bound = choose_bound(way("chat"), [model("chat", "elsewhere"), model("chat"), model("other")])
    (host,) = make_binding_routes(way("chat"), bound)["virtual_hosts"]
    clusters = {each["route"]["cluster"] for each in host["routes"] if "route" in each}
    assert clusters == {"shop-chat@1"}
    assert host["routes"][-1]["match"] == {"prefix": "/"}
    assert host["routes"][-1]["direct_response"]["status"] == 404
